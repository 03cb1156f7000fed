package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"
)

// ca issues leaves for the tests of this package.
type ca struct {
	t    *testing.T
	root *x509.Certificate
	key  ed25519.PrivateKey
	pool *x509.CertPool
}

func newCA(t *testing.T) *ca {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &ca{t: t, key: key, pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	if c.root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	c.pool.AddCert(c.root)
	return c
}

func (c *ca) leaf(id string) tls.Certificate {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	uri, err := url.Parse(id)
	if err != nil {
		c.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{uri},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, c.root, public, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// connect returns both ends of a connection between the execution room and a worker.
func (c *ca) connect(worker string) (client, server tls.ConnectionState) {
	a, b := net.Pipe()
	c.t.Cleanup(func() { a.Close(); b.Close() })
	near := tls.Client(a, Client(c.leaf(Room("execution")), c.pool, worker))
	far := tls.Server(b, Server(c.leaf(worker), c.pool, Room("execution")))
	done := make(chan error, 1)
	go func() { done <- far.Handshake() }()
	if err := near.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	if err := <-done; err != nil {
		c.t.Fatal(err)
	}
	return near.ConnectionState(), far.ConnectionState()
}

func TestProof(t *testing.T) {
	c, stranger := newCA(t), newCA(t)
	first, second := Worker("acme", "wrk_1"), Worker("acme", "wrk_2")
	near, far := c.connect(first)
	otherNear, _ := c.connect(first)
	own := c.leaf(second)
	cert, sig, err := Prove(&far, own)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckProof(&near, c.pool, second, cert, sig); err != nil {
		t.Errorf("a good proof: %v", err)
	}
	wrongKey := own
	wrongKey.PrivateKey = c.leaf(second).PrivateKey
	_, byAnother, err := Prove(&far, wrongKey)
	if err != nil {
		t.Fatal(err)
	}
	foreign := stranger.leaf(second)
	foreignCert, foreignSig, err := Prove(&far, foreign)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"of another worker":          CheckProof(&near, c.pool, Worker("acme", "wrk_3"), cert, sig),
		"of another tenant's":        CheckProof(&near, c.pool, Worker("evil", "wrk_2"), cert, sig),
		"made on another connection": CheckProof(&otherNear, c.pool, second, cert, sig),
		"without the key":            CheckProof(&near, c.pool, second, cert, byAnother),
		"by another authority":       CheckProof(&near, c.pool, second, foreignCert, foreignSig),
		"with no certificate":        CheckProof(&near, c.pool, second, []byte("x"), sig),
		"with nothing":               CheckProof(&near, c.pool, second, cert, nil),
		"on no connection":           CheckProof(nil, c.pool, second, cert, sig),
	} {
		if !errors.Is(err, ErrPeer) {
			t.Errorf("a proof %s: %v", name, err)
		}
	}
}
