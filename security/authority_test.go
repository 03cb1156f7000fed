package security

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/contract/identity"
)

func issue(t *testing.T, r *testRoom, id string) *x509.Certificate {
	t.Helper()
	c, err := r.Authority().Issue(t.Context(), id, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(c.Cert)
	if err != nil {
		t.Fatal(err)
	}
	if !leaf.NotAfter.Equal(c.Expires) || !c.Expires.Equal(r.clock.now().Add(time.Hour)) {
		t.Errorf("expires %s, says %s", leaf.NotAfter, c.Expires)
	}
	if !c.Key.Public().(ed25519.PublicKey).Equal(leaf.PublicKey) {
		t.Error("the key is not the certificate's")
	}
	return leaf
}

// TestLeafIsTheLibrarys compares leaves that are put together here with those of
// crypto/x509.
func TestLeafIsTheLibrarys(t *testing.T) {
	r := openRoom(t)
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []time.Time{r.clock.now(), time.Date(2049, 12, 31, 23, 30, 0, 0, time.UTC), time.Date(2055, 1, 1, 0, 0, 0, 0, time.UTC)} {
		for _, id := range []string{identity.Room("worker"), identity.Worker("default", "wrk_01"), "spiffe://fragua/" + strings.Repeat("x", 300)} {
			n, until := serial(), from.Add(time.Hour)
			u, err := url.Parse(id)
			if err != nil {
				t.Fatal(err)
			}
			want, err := x509.CreateCertificate(rand.Reader, template(n, from, until, u), r.authority.root, public, r.authority.key)
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.authority.leaf(n, from, until, public, id)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %s: differs: %v\n%x\n%x", from, id, err, got, want)
			}
		}
	}
}

func TestIssueAndMeet(t *testing.T) {
	r := openRoom(t, func(c *Config) { c.Now = time.Now })
	r.clock.at = time.Now()
	pool, text := r.Authority().Roots()
	parsed := x509.NewCertPool()
	if !parsed.AppendCertsFromPEM(text) || !parsed.Equal(pool) {
		t.Error("the roots differ from their PEM")
	}
	room, worker := identity.Room("execution"), identity.Worker("default", "wrk_01")
	cert := func(id string) tls.Certificate {
		c, err := r.Authority().Issue(t.Context(), id, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return c.TLS()
	}
	stranger := openRoom(t, func(c *Config) { c.Now = time.Now })
	foreign, err := stranger.Authority().Issue(t.Context(), worker, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		client, server tls.Certificate
		ok             bool
	}{
		"as they should be":      {cert(room), cert(worker), true},
		"another worker answers": {cert(room), cert(identity.Worker("default", "wrk_02")), false},
		"another room calls":     {cert(identity.Room("console")), cert(worker), false},
		"a worker calls":         {cert(worker), cert(worker), false},
		"another authority":      {cert(room), foreign.TLS(), false},
	} {
		near, far := net.Pipe()
		done := make(chan error, 1)
		go func() {
			err := tls.Server(far, identity.Server(c.server, pool, room)).Handshake()
			if err != nil {
				far.Close()
			}
			done <- err
		}()
		client := tls.Client(near, identity.Client(c.client, pool, worker))
		err := client.Handshake()
		if err == nil && !c.ok { // in TLS 1.3 the client learns with its first read
			_, err = client.Read(make([]byte, 1))
		}
		if err != nil {
			near.Close()
		}
		if srv := <-done; (err == nil && srv == nil) != c.ok {
			t.Errorf("%s: client %v, server %v", name, err, srv)
		}
		near.Close()
		far.Close()
	}
}

func TestIssueRefuses(t *testing.T) {
	r := openRoom(t)
	for _, id := range []string{"", "fragua", "https://fragua/room/x", "spiffe://other/room/x", "spiffe://fragua", "spiffe://fragua/", "spiffe://u@fragua/x",
		"spiffe://fragua/x?y", "spiffe://fragua/x#y", "spiffe://fragua:1/x", "spiffe://fragua/" + strings.Repeat("x", 3000), "spiffe://fragua/\x00", "spiffe://FRAGUA/x"} {
		if _, err := r.Authority().Issue(t.Context(), id, time.Hour); err == nil {
			t.Errorf("%.60q: issued", id)
		}
	}
	for _, ttl := range []time.Duration{0, -time.Second, maxLeafTTL + time.Second} {
		if _, err := r.Authority().Issue(t.Context(), identity.Room("x"), ttl); err == nil {
			t.Errorf("%s: issued", ttl)
		}
	}
	leaf := issue(t, r, identity.Room("worker"))
	if leaf.IsCA || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) != 0 || len(leaf.URIs) != 1 || leaf.Subject.String() != "" {
		t.Errorf("the leaf says more than its id: %+v", leaf)
	}
}

func TestRootIsKeptAndRenewed(t *testing.T) {
	r := openRoom(t)
	_, first := r.Authority().Roots()
	r = r.reopen(t)
	if _, again := r.Authority().Roots(); !bytes.Equal(first, again) {
		t.Error("another root after opening again")
	}
	r.clock.add(rootTTL - maxLeafTTL + time.Minute)
	r = r.reopen(t)
	_, renewed := r.Authority().Roots()
	if bytes.Equal(first, renewed) {
		t.Fatal("the root would end before a leaf")
	}
	block, _ := pem.Decode(renewed)
	if root, err := x509.ParseCertificate(block.Bytes); err != nil || !root.IsCA || !root.MaxPathLenZero {
		t.Errorf("%+v, %v", root, err)
	}
	if err := os.Remove(filepath.Join(r.cfg.Dir, "ca.crt")); err != nil {
		t.Fatal(err)
	}
	r = r.reopen(t)
	issue(t, r, identity.Room("worker"))
}

func TestSharedWithWorkers(t *testing.T) {
	r, stranger := openRoom(t), openRoom(t)
	ask := func(r *testRoom, id string) identity.Certificate {
		t.Helper()
		c, err := r.Authority().Issue(t.Context(), id, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	house := ask(r, identity.Room("execution")).Shared
	if len(house) != 32 {
		t.Fatalf("the execution room has a key of %d bytes", len(house))
	}
	w := ask(r, identity.Worker("acme", "wrk_1"))
	if !bytes.Equal(w.Shared, identity.SharedWith(house, w.Cert)) {
		t.Error("what the worker has does not follow from what the room has")
	}
	if again := ask(r, identity.Worker("acme", "wrk_1")); bytes.Equal(again.Shared, w.Shared) {
		t.Error("another certificate shares the same")
	}
	if ask(r, identity.Room("worker")).Shared != nil {
		t.Error("another room has a key")
	}
	if bytes.Equal(house, ask(stranger, identity.Room("execution")).Shared) {
		t.Error("two houses have one key")
	}
}
