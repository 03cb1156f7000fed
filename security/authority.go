package security

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"path/filepath"
	"time"

	"fragua.dev/fragua/contract/identity"
)

// Lives of certificates.
const (
	rootTTL    = 10 * 365 * 24 * time.Hour
	maxLeafTTL = 31 * 24 * time.Hour
	backdate   = time.Minute // for clocks that are behind
)

// authority issues the certificates by which the processes of the house know one
// another. Its keys and theirs are Ed25519: of what Go offers, two processes meet
// at the least cost with these.
type authority struct {
	key    ed25519.PrivateKey
	root   *x509.Certificate
	pool   *x509.CertPool
	pem    []byte
	now    func() time.Time
	common []byte // the extensions that every leaf has, in DER
	house  []byte // what is shared with workers follows from it
}

// openAuthority reads the authority's key and root in dir, or makes them.
func openAuthority(dir string, now func() time.Time) (*authority, error) {
	text, err := keep(filepath.Join(dir, "ca.key"), func() ([]byte, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return pemKey(key)
	})
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	a := &authority{now: now}
	if a.key, err = readKey[ed25519.PrivateKey](text); err != nil {
		return nil, fmt.Errorf("authority: ca.key: %w", err)
	}
	file := filepath.Join(dir, "ca.crt")
	a.pem, err = keep(file, a.makeRoot)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	if a.root, err = a.readRoot(a.pem); errors.Is(err, errOutlived) {
		if a.pem, err = a.makeRoot(); err == nil {
			err = writePrivate(file, a.pem)
		}
		if err == nil {
			a.root, err = a.readRoot(a.pem)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("authority: ca.crt: %w", err)
	}
	a.pool = x509.NewCertPool()
	a.pool.AddCert(a.root)
	if a.house, err = hkdf.Key(sha256.New, a.key.Seed(), nil, "fragua: what the house shares with its workers", sha256.Size); err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	if err := a.learn(); err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	return a, nil
}

func (a *authority) makeRoot() ([]byte, error) {
	now := a.now()
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Fragua authority"},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(rootTTL),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
		PermittedURIDomains: []string{identity.TrustDomain}, PermittedDNSDomainsCritical: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, a.key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

var errOutlived = errors.New("the certificate has expired")

func (a *authority) readRoot(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("this is not a certificate in PEM")
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("this is not a certificate: %w", err)
	}
	if public, ok := root.PublicKey.(ed25519.PublicKey); !ok || !public.Equal(a.key.Public()) {
		return nil, errors.New("this certificate is not of the key ca.key")
	}
	if a.now().Add(maxLeafTTL).After(root.NotAfter) {
		return nil, errOutlived
	}
	return root, nil
}

// Issue returns a certificate for a SPIFFE id of the house, with a new key.
func (a *authority) Issue(ctx context.Context, spiffeID string, ttl time.Duration) (identity.Certificate, error) {
	if err := ctx.Err(); err != nil {
		return identity.Certificate{}, err
	}
	id, err := url.Parse(spiffeID)
	if err != nil || id.Scheme != "spiffe" || id.Host != identity.TrustDomain || len(id.Path) < 2 || id.String() != spiffeID || len(spiffeID) > 2048 || id.RawQuery != "" || id.Fragment != "" || id.User != nil {
		return identity.Certificate{}, fmt.Errorf("certificate: want an id that begins with spiffe://%s/", identity.TrustDomain)
	}
	if ttl <= 0 || ttl > maxLeafTTL {
		return identity.Certificate{}, fmt.Errorf("certificate: want a life of at most %s", maxLeafTTL)
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return identity.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	now := a.now()
	from, until := now.Add(-backdate).UTC(), now.Add(ttl).UTC().Truncate(time.Second)
	der, err := a.leaf(serial(), from, until, public, spiffeID)
	if err != nil {
		return identity.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	c := identity.Certificate{Cert: der, Key: key, Expires: until}
	if spiffeID == identity.Room("execution") {
		c.Shared = a.house
	} else if identity.RoomOf(spiffeID) == "" {
		c.Shared = identity.SharedWith(a.house, der)
	}
	return c, nil
}

// Roots returns what certificates are verified against.
func (a *authority) Roots() (*x509.CertPool, []byte) { return a.pool, a.pem }

// serial returns a number that is not given twice: 127 random bits.
func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails: see crypto/rand
	b[0] &= 0x7f
	b[0] |= 0x40
	return new(big.Int).SetBytes(b[:])
}
