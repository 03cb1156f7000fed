package agentclient

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/identity"
)

// authority issues certificates for a test.
type authority struct {
	t    *testing.T
	root *x509.Certificate
	key  ed25519.PrivateKey
	pool *x509.CertPool
	n    int64
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, pool: x509.NewCertPool()}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.key = key
	a.root = &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.root = a.sign(a.root, a.root, public)
	a.pool.AddCert(a.root)
	return a
}

func (a *authority) sign(c, parent *x509.Certificate, public ed25519.PublicKey) *x509.Certificate {
	a.n++
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(a.n), time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	return c
}

// house is the key that a test's house shares with its workers by.
var house = []byte("the house's key")

// own is the certificate of the execution room.
func (a *authority) own() identity.Certificate {
	c := a.issue(identity.Room("execution"))
	return identity.Certificate{Cert: c.Certificate[0], Key: c.PrivateKey.(ed25519.PrivateKey), Shared: house}
}

func (a *authority) issue(id string) tls.Certificate {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	u, err := url.Parse(id)
	if err != nil {
		a.t.Fatal(err)
	}
	c := a.sign(&x509.Certificate{
		URIs: []*url.URL{u}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.root, public)
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key}
}

// agent is the worker of one job after another, at one address.
type agent struct {
	t       *testing.T
	ca      *authority
	house   []byte
	address string

	mu     sync.Mutex
	cert   tls.Certificate
	conns  map[net.Conn]bool // that are open
	made   int               // connections, ever
	proofs int
	execs  []ident.Exec
}

func newAgent(t *testing.T, ca *authority) *agent {
	a := &agent{t: t, ca: ca, house: house, conns: map[net.Conn]bool{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.address = l.Addr().String()
	config := identity.Server(ca.issue("spiffe://fragua/nobody"), ca.pool, identity.Room("execution"))
	config.Certificates, config.GetCertificate = nil, func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		c := a.cert
		return &c, nil
	}
	server := &http.Server{Handler: a, ErrorLog: log.New(io.Discard, "", 0), ConnState: func(c net.Conn, s http.ConnState) {
		a.mu.Lock()
		defer a.mu.Unlock()
		switch s {
		case http.StateNew:
			a.made, a.conns[c] = a.made+1, true
		case http.StateClosed:
			delete(a.conns, c)
		}
	}}
	over := make(chan struct{})
	go func() {
		defer close(over)
		server.Serve(tls.NewListener(l, config))
	}()
	t.Cleanup(func() {
		server.Close()
		<-over
	})
	return a
}

// become makes the agent the worker w, with that one's certificate, or another's.
func (a *agent) become(id string) {
	c := a.ca.issue(id)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cert = c
}

// hangUp closes all connections, as a machine that is restarted does.
func (a *agent) hangUp() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.conns {
		c.Close()
	}
}

func (a *agent) seen() (connections, proofs, execs int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.made, a.proofs, len(a.execs)
}

func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch r.URL.Path {
	case "/worker":
		a.proofs++
		cert := a.cert.Certificate[0]
		code, err := identity.Prove(r.TLS, cert, identity.SharedWith(a.house, cert))
		if err != nil {
			http.Error(w, err.Error(), 500)
			return
		}
		json.NewEncoder(w).Encode(agentapi.Proof{Cert: cert, Code: code})
	case "/exec":
		var q agentapi.ExecRequest
		json.NewDecoder(r.Body).Decode(&q)
		a.execs = append(a.execs, q.Exec)
		json.NewEncoder(w).Encode(agentapi.Exec{Exec: q.Exec, State: agentapi.Started})
	default:
		json.NewEncoder(w).Encode(agentapi.LeaseReply{})
	}
}

func newBench(t *testing.T) (*agent, *Dialer) {
	ca := newAuthority(t)
	d := NewDialer(ca.own(), ca.pool)
	t.Cleanup(d.Close)
	return newAgent(t, ca), d
}

func exec(t *testing.T, c *Client, id ident.Exec) error {
	t.Helper()
	x, err := c.Exec(t.Context(), agentapi.ExecRequest{Exec: id})
	if err == nil && x.Exec != id {
		t.Errorf("asked for %s, answered %s", id, x.Exec)
	}
	return err
}

func TestOneConnectionServesOneWorkerAfterAnother(t *testing.T) {
	a, d := newBench(t)
	for i := range 5 {
		w := ident.Worker(fmt.Sprintf("w%d", i))
		a.become(identity.Worker("acme", w))
		c := d.Dial(a.address, "acme", w)
		for k := range 3 {
			if err := exec(t, c, ident.Exec(fmt.Sprintf("x%d.%d", i, k))); err != nil {
				t.Fatalf("%s: %v", w, err)
			}
		}
		c.Close()
	}
	if made, proofs, execs := a.seen(); made != 1 || proofs != 4 || execs != 15 {
		t.Errorf("%d connections, %d proofs, %d steps; want 1, 4, 15", made, proofs, execs)
	}
}

func TestALineThatBrokeIsMadeAnew(t *testing.T) {
	for name, next := range map[string]ident.Worker{"for the same worker": "w0", "for the next one": "w1"} {
		t.Run(name, func(t *testing.T) {
			a, d := newBench(t)
			a.become(identity.Worker("acme", "w0"))
			c := d.Dial(a.address, "acme", "w0")
			if err := exec(t, c, "x1"); err != nil {
				t.Fatal(err)
			}
			a.hangUp()
			if next != "w0" {
				c.Close()
				a.become(identity.Worker("acme", next))
				c = d.Dial(a.address, "acme", next)
			}
			defer c.Close()
			// Whoever is in the middle of a call may hear of it: then asking again helps.
			err := exec(t, c, "x2")
			for tries := 0; errors.Is(err, ErrUnreachable) && tries < 3; tries++ {
				err = exec(t, c, "x2")
			}
			if err != nil {
				t.Fatal(err)
			}
			if made, _, _ := a.seen(); made != 2 {
				t.Errorf("%d connections", made)
			}
		})
	}
}

func TestNothingIsToldToAnImpostor(t *testing.T) {
	for name, other := range map[string]string{
		"another worker":           identity.Worker("acme", "w9"),
		"another tenant's":         identity.Worker("other", "w1"),
		"a room":                   identity.Room("execution"),
		"the worker of before":     identity.Worker("acme", "w0"),
		"a name that is only like": identity.Worker("acme", "w1x"),
	} {
		t.Run(name, func(t *testing.T) {
			a, d := newBench(t)
			a.become(identity.Worker("acme", "w0"))
			c := d.Dial(a.address, "acme", "w0")
			if err := exec(t, c, "x0"); err != nil {
				t.Fatal(err)
			}
			c.Close()
			a.become(other)
			c = d.Dial(a.address, "acme", "w1")
			for range 3 { // on the line that stands, and on those that are made after it
				if err := exec(t, c, "x1"); err == nil {
					t.Fatal("it was taken for w1")
				}
				if _, err := c.Lease(t.Context()); err == nil {
					t.Fatal("its lease was taken for that of w1")
				}
			}
			if _, _, execs := a.seen(); execs != 1 {
				t.Errorf("%d steps were told", execs)
			}
			// When the right one comes, the line serves it.
			a.become(identity.Worker("acme", "w1"))
			if err := exec(t, c, "x1"); err != nil {
				t.Error(err)
			}
			c.Close()
		})
	}
}

func TestAProofFromAnotherHouseIsNone(t *testing.T) {
	a, d := newBench(t)
	a.become(identity.Worker("acme", "w0"))
	c := d.Dial(a.address, "acme", "w0")
	if err := exec(t, c, "x0"); err != nil {
		t.Fatal(err)
	}
	c.Close()
	a.ca, a.house = newAuthority(t), []byte("another house's key")
	a.become(identity.Worker("acme", "w1"))
	c = d.Dial(a.address, "acme", "w1")
	defer c.Close()
	if err := exec(t, c, "x1"); !errors.Is(err, identity.ErrPeer) {
		t.Errorf("%v", err)
	}
}

func TestALineHasOneUserAtATime(t *testing.T) {
	a, d := newBench(t)
	a.become(identity.Worker("acme", "w0"))
	d.Dial(a.address, "acme", "w0").Close() // a line that nobody uses
	one, two := d.Dial(a.address, "acme", "w0"), d.Dial(a.address, "acme", "w0")
	if one.line == two.line {
		t.Fatal("two clients share a line")
	}
	for _, c := range []*Client{one, two} {
		if err := exec(t, c, "x"); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if len(d.lines) != 1 || d.lines[a.address] != two.line {
		t.Errorf("%d lines are kept", len(d.lines))
	}
}

func TestLinesThatNobodyUsesAreBounded(t *testing.T) {
	ca := newAuthority(t)
	d := NewDialer(ca.own(), ca.pool)
	defer d.Close()
	for i := range maxLines + 10 {
		d.Dial(fmt.Sprintf("127.0.0.1:%d", 1+i), "acme", "w").Close()
	}
	if d.lines["127.0.0.1:1"] != nil || len(d.lines) != maxLines {
		t.Errorf("%d lines are kept", len(d.lines))
	}
}

func TestErrorsSayWhetherAskingAgainHelps(t *testing.T) {
	a, d := newBench(t)
	a.become(identity.Worker("acme", "w0"))
	c := d.Dial(a.address, "acme", "w0")
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Lease(ctx); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a call that was given up: %v", err)
	}
	nobody := d.Dial("127.0.0.1:1", "acme", "w0")
	defer nobody.Close()
	if err := exec(t, nobody, "x"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("nobody there: %v", err)
	}
}
