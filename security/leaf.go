package security

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"net/url"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"

	"fragua.dev/fragua/contract/identity"
)

// crypto/x509 verifies each signature that it makes, which is half of what a
// certificate costs. A worker is made for every attempt of every job, and its two
// peers verify the certificate anyway: so leaves are put together here, after one
// that the library made, and a test holds them to be the same byte for byte.

var (
	oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}
	oidSAN     = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// template is a leaf as the library is asked for it.
func template(serial *big.Int, from, until time.Time, id *url.URL) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: serial, NotBefore: from, NotAfter: until, URIs: []*url.URL{id},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
}

// learn makes one leaf with the library, and keeps the extensions that do not
// differ from leaf to leaf. The one that does, the name, comes last.
func (a *authority) learn() error {
	id, err := url.Parse(identity.Room("security"))
	if err != nil {
		return err
	}
	now := a.now()
	der, err := x509.CreateCertificate(rand.Reader, template(serial(), now, now.Add(time.Minute), id), a.root, a.key.Public(), a.key)
	if err != nil {
		return err
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	var b cryptobyte.Builder
	for _, e := range made.Extensions {
		if !e.Id.Equal(oidSAN) {
			extension(&b, e.Id, e.Critical, func(b *cryptobyte.Builder) { b.AddBytes(e.Value) })
		}
	}
	a.common, err = b.Bytes()
	return err
}

func extension(b *cryptobyte.Builder, id asn1.ObjectIdentifier, critical bool, value func(*cryptobyte.Builder)) {
	b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(id)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(tags.OCTET_STRING, value)
	})
}

// leaf returns a certificate in DER for the key public and the SPIFFE id.
func (a *authority) leaf(serial *big.Int, from, until time.Time, public ed25519.PublicKey, id string) ([]byte, error) {
	algorithm := func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidEd25519) }
	var b cryptobyte.Builder
	b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tags.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) }) // version 3
		b.AddASN1BigInt(serial)
		b.AddASN1(tags.SEQUENCE, algorithm)
		b.AddBytes(a.root.RawSubject)
		b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
			moment(b, from)
			moment(b, until)
		})
		b.AddASN1(tags.SEQUENCE, func(*cryptobyte.Builder) {}) // no subject: the name is a SPIFFE id
		b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(tags.SEQUENCE, algorithm)
			b.AddASN1BitString(public)
		})
		b.AddASN1(tags.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddBytes(a.common)
				extension(b, oidSAN, true, func(b *cryptobyte.Builder) {
					b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1(tags.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(id)) })
					})
				})
			})
		})
	})
	tbs, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	var whole cryptobyte.Builder
	whole.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddASN1(tags.SEQUENCE, algorithm)
		b.AddASN1BitString(ed25519.Sign(a.key, tbs))
	})
	return whole.Bytes()
}

// moment writes a time as RFC 5280 wants it.
func moment(b *cryptobyte.Builder, t time.Time) {
	if t.Year() < 2050 {
		b.AddASN1UTCTime(t)
		return
	}
	b.AddASN1GeneralizedTime(t)
}
