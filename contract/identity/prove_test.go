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
	return c.issue(id, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
}

func (c *ca) issue(id string, usage ...x509.ExtKeyUsage) tls.Certificate {
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
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usage,
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
	c := newCA(t)
	first, second := Worker("acme", "wrk_1"), Worker("acme", "wrk_2")
	near, far := c.connect(first)
	otherNear, _ := c.connect(first)
	house, stranger := []byte("the house's key"), []byte("another house's key")
	cert := c.leaf(second).Certificate[0]
	client := c.issue(second, x509.ExtKeyUsageClientAuth).Certificate[0]
	prove := func(house []byte, cert []byte) []byte {
		t.Helper()
		code, err := Prove(&far, cert, SharedWith(house, cert))
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	now := time.Now()
	good := prove(house, cert)
	if err := CheckProof(&near, house, second, cert, good, now); err != nil {
		t.Errorf("a good proof: %v", err)
	}
	for name, err := range map[string]error{
		"of another worker":                         CheckProof(&near, house, Worker("acme", "wrk_3"), cert, good, now),
		"of another tenant's":                       CheckProof(&near, house, Worker("evil", "wrk_2"), cert, good, now),
		"made on another connection":                CheckProof(&otherNear, house, second, cert, good, now),
		"for another certificate":                   CheckProof(&near, house, second, c.leaf(second).Certificate[0], good, now),
		"by another house":                          CheckProof(&near, house, second, cert, prove(stranger, cert), now),
		"by one whom nobody told":                   CheckProof(&near, house, second, cert, prove(nil, cert), now),
		"by a house without a key":                  CheckProof(&near, nil, second, cert, prove(nil, cert), now),
		"after the certificate's end":               CheckProof(&near, house, second, cert, good, now.Add(2*time.Hour)),
		"before its begin":                          CheckProof(&near, house, second, cert, good, now.Add(-time.Hour)),
		"with no certificate":                       CheckProof(&near, house, second, []byte("x"), good, now),
		"with nothing":                              CheckProof(&near, house, second, cert, nil, now),
		"on no connection":                          CheckProof(nil, house, second, cert, good, now),
		"with a certificate that is not a server's": CheckProof(&near, house, second, client, prove(house, client), now),
	} {
		if !errors.Is(err, ErrPeer) {
			t.Errorf("a proof %s: %v", name, err)
		}
	}
}
