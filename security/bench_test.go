package security

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"testing"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/identity"
)

func BenchmarkVerifyCached(b *testing.B) {
	r := openRoom(b)
	token := r.ownerToken(b)
	for b.Loop() {
		if _, err := r.Verify(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyUncached(b *testing.B) {
	r := openRoom(b)
	token := r.ownerToken(b)
	for b.Loop() {
		c, err := r.read(token)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := r.accept(c, r.cfg.Now()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	r := openRoom(b)
	q := authz.Question{
		Principal: authz.Principal{Sub: "token:x", Scopes: []string{"job:create", "job:read", "pipeline:*"}, Tenant: "default"},
		Action:    "Job::create",
		Resource:  authz.Resource{Type: "Job", ID: "job_01", Tenant: "default", Attrs: map[string]any{"owner": "token:x", "tags": []string{"a=b"}}},
	}
	b.Run("policies", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !r.policies.decide(q).Permit {
				b.Fatal("denied")
			}
		}
	})
	b.Run("with event", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !r.Decide(b.Context(), q).Permit {
				b.Fatal("denied")
			}
		}
	})
}

func BenchmarkIssue(b *testing.B) {
	r := openRoom(b)
	for b.Loop() {
		if _, err := r.Authority().Issue(b.Context(), identity.Worker("default", "wrk_01"), time.Hour); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHandshake compares kinds of keys by what two processes pay to meet:
// both ends' signatures, and both ends' verification of leaf and root.
func BenchmarkHandshake(b *testing.B) {
	for name, makeKey := range map[string]func() crypto.Signer{
		"p256":    func() crypto.Signer { k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader); return k },
		"ed25519": func() crypto.Signer { _, k, _ := ed25519.GenerateKey(rand.Reader); return k },
	} {
		b.Run("issue/"+name, func(b *testing.B) {
			ca := newTestCA(b, makeKey)
			for b.Loop() {
				ca.leaf(b, makeKey, "spiffe://fragua/room/execution")
			}
		})
		b.Run("meet/"+name, func(b *testing.B) {
			ca := newTestCA(b, makeKey)
			room, worker := identity.Room("execution"), identity.Worker("default", "wrk_01")
			client := identity.Client(ca.leaf(b, makeKey, room), ca.pool, worker)
			server := identity.Server(ca.leaf(b, makeKey, worker), ca.pool, room)
			for b.Loop() {
				meet(b, client, server)
			}
		})
	}
}

type testCA struct {
	key  crypto.Signer
	root *x509.Certificate
	pool *x509.CertPool
}

func newTestCA(b *testing.B, makeKey func() crypto.Signer) *testCA {
	ca := &testCA{key: makeKey(), pool: x509.NewCertPool()}
	t := &x509.Certificate{SerialNumber: serial(), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, t, t, ca.key.Public(), ca.key)
	if err != nil {
		b.Fatal(err)
	}
	if ca.root, err = x509.ParseCertificate(der); err != nil {
		b.Fatal(err)
	}
	ca.pool.AddCert(ca.root)
	return ca
}

func (ca *testCA) leaf(b *testing.B, makeKey func() crypto.Signer, id string) tls.Certificate {
	u, err := url.Parse(id)
	if err != nil {
		b.Fatal(err)
	}
	key := makeKey()
	t := &x509.Certificate{SerialNumber: serial(), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{u},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, t, ca.root, key.Public(), ca.key)
	if err != nil {
		b.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func meet(b testing.TB, client, server *tls.Config) {
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- tls.Server(far, server).Handshake() }()
	c := tls.Client(near, client)
	if err := c.Handshake(); err != nil {
		b.Fatal(err)
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	near.Close()
	far.Close()
}

func BenchmarkAudit(b *testing.B) {
	r := openRoom(b)
	handle := r.Subscriptions()[0].Handle
	now := time.Now()
	ids := ident.NewSource(time.Now)
	b.SetParallelism(24) // as many at once as the bus has for one room
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			d := ident.Decision(ids("dec"))
			e := event.AuthGranted.Event(event.About{Tenant: "default", Key: string(d), Correlation: "job_01", At: now},
				event.Grant{Principal: event.Principal{Sub: "token:x", Scopes: []string{"job:create"}, Tenant: "default"}, Scope: "Job::create", DecisionID: d, Resource: "Job::job_01", Policies: []string{"job-create"}})
			if err := handle(context.Background(), e); err != nil {
				b.Error(err)
			}
		}
	})
}
