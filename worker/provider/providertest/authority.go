package providertest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"
	"time"

	"fragua.dev/fragua/contract/identity"
)

// authority is a certificate authority for one test.
type authority struct {
	key  ed25519.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

// NewAuthority returns an authority that nobody else trusts.
func NewAuthority(t testing.TB) identity.Authority {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Minute),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a *authority) Issue(_ context.Context, id string, ttl time.Duration) (identity.Certificate, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return identity.Certificate{}, err
	}
	uri, err := url.Parse(id)
	if err != nil {
		return identity.Certificate{}, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(ttl), URIs: []*url.URL{uri},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		return identity.Certificate{}, err
	}
	house := []byte("what the house of a test keeps to itself")
	c := identity.Certificate{Cert: der, Key: key, Expires: tmpl.NotAfter, Shared: house}
	if id != identity.Room("execution") {
		c.Shared = identity.SharedWith(house, der)
	}
	return c, nil
}

func (a *authority) Roots() (*x509.CertPool, []byte) {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool, a.pem
}
