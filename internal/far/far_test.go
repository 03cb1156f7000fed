package far_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/contract/artifacts"
	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/identity"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/far"
	"fragua.dev/fragua/internal/peer"
)

// An authority is one for tests, as small as can be.
type authority struct {
	key  ed25519.PrivateKey
	root *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(100 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err == nil {
		root, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key, root}
}

func (a *authority) Issue(_ context.Context, id string, ttl time.Duration) (c identity.Certificate, err error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return c, err
	}
	u, err := url.Parse(id)
	if err != nil {
		return c, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(ttl), URIs: []*url.URL{u},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.root, public, a.key)
	if err != nil {
		return c, err
	}
	return identity.Certificate{Cert: der, Key: key}, err
}

func (a *authority) Roots() (*x509.CertPool, []byte) {
	pool := x509.NewCertPool()
	pool.AddCert(a.root)
	return pool, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw})
}

// guard is a security room that knows one token and one secret.
type guard struct{ asked authz.Question }

func (g *guard) Verify(_ context.Context, token string) (authz.Principal, error) {
	if token != "good" {
		return authz.Principal{}, errors.Join(authz.ErrBadToken)
	}
	return authz.Principal{Sub: "me", Tenant: "acme", Scopes: []string{"*"}}, nil
}

func (g *guard) Decide(_ context.Context, q authz.Question) authz.Answer {
	g.asked = q
	a := authz.Answer{Permit: true, DecisionID: "dec_1", Policies: []string{"p"}, Obligations: []string{"limit_to_tenant"}}
	a.Event = authz.Said(q, a, time.Now())
	return a
}

func (g *guard) Reveal(_ context.Context, _ ident.Tenant, names []string) (map[string]string, error) {
	if len(names) != 1 || names[0] != "KEY" {
		return nil, artifacts.ErrNoSecret
	}
	return map[string]string{"KEY": "s3cret"}, nil
}

// shelf keeps one artifact.
type shelf struct{ content string }

func (s *shelf) Keep(_ context.Context, _ ident.Tenant, _ spec.ArtifactRef, r io.Reader) error {
	b, err := io.ReadAll(r)
	if err == nil {
		s.content = string(b)
	}
	return err
}

func (s *shelf) Open(_ context.Context, t ident.Tenant, ref spec.ArtifactRef) (io.ReadCloser, error) {
	if t != "acme" || ref.Name != "a" {
		return nil, artifacts.ErrNotFound
	}
	return io.NopCloser(strings.NewReader(s.content)), nil
}

// A house is a process with the security and the artifact room, and callers of all.
type house struct {
	t   *testing.T
	dir peer.Dir
	ca  *authority
	g   *guard
}

func newHouse(t *testing.T) *house {
	h := &house{t, peer.Dir(t.TempDir()), newAuthority(t), &guard{}}
	_, roots := h.ca.Roots()
	if err := os.MkdirAll(filepath.Join(string(h.dir), "security"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(string(h.dir), "security", "ca.crt"), roots, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.dir.Issue(t.Context(), h.ca, "security", "artifact", "execution", "worker", "console"); err != nil {
		t.Fatal(err)
	}
	hall := peer.NewHall(slog.New(slog.DiscardHandler))
	far.Guard{
		Verifier: h.g, Decider: h.g, Authority: h.ca, Vault: h.g,
		Service: func(room string) authz.Principal { return authz.Principal{Sub: "service:" + room} },
		Reached: func(context.Context, string) error { return nil },
	}.Answer(hall)
	far.AnswerKeeper(hall, &shelf{})
	server, l, err := hall.Server([]*peer.Identity{h.identity("security"), h.identity("artifact")})
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	if err := h.dir.Publish(l.Addr().String(), "security", "artifact"); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) identity(room string) *peer.Identity {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
	defer cancel()
	id, err := h.dir.Identity(ctx, room)
	if err != nil {
		h.t.Fatal(err)
	}
	return id
}

func (h *house) security(room string) *far.Security {
	id := h.identity(room)
	c := h.dir.Caller(id)
	h.t.Cleanup(func() { c.Close() })
	return &far.Security{Caller: c, Self: id, IDs: ident.NewSource(time.Now), Now: time.Now}
}

func soon(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestSecurityFromAfar(t *testing.T) {
	h := newHouse(t)
	s := h.security("execution")
	if p, err := s.Verify(t.Context(), "good"); err != nil || p.Sub != "me" || p.Tenant != "acme" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := s.Verify(t.Context(), "bad"); !errors.Is(err, authz.ErrBadToken) || err.Error() != authz.ErrBadToken.Error() {
		t.Errorf("a bad token: %v", err)
	}
	q := authz.Question{
		Principal: authz.Principal{Sub: "me", Tenant: "acme"}, Action: "Job::create", Correlation: "c",
		Resource: authz.Resource{Type: "Job", ID: "job_1", Tenant: "acme", Attrs: map[string]any{"s": "text", "b": true, "n": int64(1 << 60), "l": []string{"x"}, "none": []string{}}},
		Context:  map[string]any{"i": 7},
	}
	a := s.Decide(t.Context(), q)
	if !a.Permit || a.DecisionID != "dec_1" || a.Event.ID == "" || a.Obligations[0] != "limit_to_tenant" {
		t.Errorf("answer %+v", a)
	}
	q.Context["i"] = int64(7)
	if !reflect.DeepEqual(h.g.asked, q) {
		t.Errorf("asked %+v, want %+v", h.g.asked, q)
	}
	q.Context["i"] = 7.5
	if a := s.Decide(t.Context(), q); a.Permit || a.Event.Subject != event.AuthorizationDenied.Subject {
		t.Errorf("an attribute of no type: %+v", a)
	}
	if p, err := s.Service(t.Context()); err != nil || p.Sub != "service:execution" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := s.Reveal(t.Context(), "acme", []string{"NONE"}); !errors.Is(err, artifacts.ErrNoSecret) {
		t.Errorf("no such secret: %v", err)
	}
}

func TestWhoMayAskWhat(t *testing.T) {
	h := newHouse(t)
	worker, execution, console := h.security("worker"), h.security("execution"), h.security("console")
	someone := identity.Worker("acme", "wkr_1")
	for _, c := range []struct {
		who  *far.Security
		room string
		id   string
		may  bool
	}{
		{worker, "worker", someone, true}, {worker, "worker", identity.Room("execution"), false}, {worker, "worker", someone + "/more", false},
		{execution, "execution", identity.Room("execution"), true}, {execution, "execution", someone, false},
		{execution, "execution", identity.Room("security"), false}, {console, "console", someone, false},
	} {
		if got, err := c.who.Issue(t.Context(), c.id, time.Hour); (err == nil) != c.may || c.may && len(got.Key) == 0 {
			t.Errorf("%s asks for %s: %v", c.room, c.id, err)
		}
	}
	if got, err := execution.Reveal(t.Context(), "acme", []string{"KEY"}); err != nil || got["KEY"] != "s3cret" {
		t.Errorf("%v", err)
	}
	for _, s := range []*far.Security{worker, console} {
		if got, err := s.Reveal(t.Context(), "acme", []string{"KEY"}); err == nil {
			t.Errorf("revealed %d secrets", len(got))
		}
		if err := (far.Keeper{Caller: s.Caller}).Keep(t.Context(), "acme", spec.ArtifactRef{Name: "a"}, strings.NewReader("x")); err == nil {
			t.Error("a room that runs no jobs keeps artifacts")
		}
		if err := s.Reached(t.Context(), "http://evil"); err == nil {
			t.Error("a room that clients do not find says where they do")
		}
	}
}

func TestStrangersStayOutside(t *testing.T) {
	h := newHouse(t)
	pems := filepath.Join(string(h.dir), "security", "rooms")
	// A worker's certificate is of the same authority, and no room's.
	c, err := h.ca.Issue(t.Context(), identity.Worker("acme", "wkr_1"), time.Hour*24)
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.PEM()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(pems, "console.pem"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.security("console").Service(soon(t, 200*time.Millisecond)); !errors.Is(err, peer.ErrAway) {
		t.Errorf("a worker came in: %v", err)
	}
	// Whoever listens where a room was is not that room.
	if err := h.dir.Publish(must(h.dir.Address("security")), "orchestration"); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Ask[struct{}](soon(t, 200*time.Millisecond), h.dir.Caller(h.identity("worker")), "orchestration", "service", struct{}{}); !errors.Is(err, peer.ErrAway) {
		t.Errorf("the security room passed for another: %v", err)
	}
	// A certificate of another authority is waited out.
	if err := h.dir.Issue(t.Context(), newAuthority(t), "worker"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.dir.Identity(soon(t, 200*time.Millisecond), "worker"); err == nil || !strings.Contains(err.Error(), "does the process with it run?") {
		t.Errorf("a certificate of another house: %v", err)
	}
}

func must(s string, err error) string {
	if err != nil {
		panic(err)
	}
	return s
}

func TestWhoIsAwayDenies(t *testing.T) {
	h := newHouse(t)
	s := h.security("execution")
	h.dir.Withdraw("security")
	a := s.Decide(soon(t, 100*time.Millisecond), authz.Question{Principal: authz.Principal{Sub: "me", Tenant: "acme"}, Action: "Job::create"})
	if a.Permit || a.DecisionID == "" || a.Event.Subject != event.AuthorizationDenied.Subject || a.Reason == "" {
		t.Errorf("%+v", a)
	}
}

func TestArtifactsFromAfar(t *testing.T) {
	h := newHouse(t)
	k := far.Keeper{Caller: h.security("execution").Caller}
	ref := spec.ArtifactRef{Repository: "r", Name: "a", Version: "1"}
	big := strings.Repeat("0123456789abcdef", 1<<18)
	if err := k.Keep(t.Context(), "acme", ref, strings.NewReader(big)); err != nil {
		t.Fatal(err)
	}
	r, err := k.Open(t.Context(), "acme", ref)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != big {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	r.Close()
	if _, err := k.Open(t.Context(), "other", ref); !errors.Is(err, artifacts.ErrNotFound) {
		t.Errorf("another tenant's: %v", err)
	}
	broke := errors.New("the worker has gone")
	if err := k.Keep(t.Context(), "acme", ref, io.MultiReader(strings.NewReader(big), failing{broke})); !errors.Is(err, broke) {
		t.Errorf("a content that breaks off: %v", err)
	}
	h.dir.Withdraw("artifact")
	k.Caller.Close()
	if err := k.Keep(t.Context(), "acme", ref, strings.NewReader("x")); !errors.Is(err, artifacts.ErrAway) {
		t.Errorf("kept by nobody: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
