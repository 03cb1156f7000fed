package security

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
)

// clock is a time that tests set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// logs collects what a room writes to its log.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type testRoom struct {
	*Room
	clock *clock
	logs  *logs
}

func config(dir string) (Config, *clock, *logs) {
	c, l := newClock(), &logs{}
	return Config{Dir: dir, Now: c.now, IDs: ident.NewSource(c.now), Log: slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))}, c, l
}

func openRoom(t testing.TB, change ...func(*Config)) *testRoom {
	t.Helper()
	cfg, c, l := config(filepath.Join(t.TempDir(), "security"))
	for _, f := range change {
		f(&cfg)
	}
	r, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return &testRoom{r, c, l}
}

func (r *testRoom) reopen(t testing.TB, change ...func(*Config)) *testRoom {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := r.cfg
	for _, f := range change {
		f(&cfg)
	}
	n, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() }) // closed twice when opened again
	return &testRoom{n, r.clock, r.logs}
}

func (r *testRoom) ownerToken(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(r.cfg.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestFilesArePrivate(t *testing.T) {
	r := openRoom(t)
	n := 0
	err := filepath.WalkDir(r.cfg.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || strings.HasPrefix(filepath.Base(path), "security.db") { // in a folder that is closed
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		n++
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: others may use it: %s", filepath.Base(path), info.Mode())
		}
		return nil
	})
	if err != nil || n < 6 {
		t.Fatalf("%d files, %v", n, err)
	}
}

func TestOwnerTokenIsMadeOnce(t *testing.T) {
	r := openRoom(t)
	first := r.ownerToken(t)
	p, err := r.Verify(t.Context(), first)
	if err != nil || p.Sub != "owner" || p.Tenant != Home || !slices.Equal(p.Scopes, []string{"*"}) {
		t.Fatalf("%+v, %v", p, err)
	}
	r = r.reopen(t)
	if r.ownerToken(t) != first {
		t.Error("a good token was made again")
	}
	r = r.reopen(t, func(c *Config) { c.Issuer = "https://ci.example.org/" })
	if r.ownerToken(t) != first {
		t.Error("a good token was made again because the server moved")
	}
	for name, spoil := range map[string]func() error{
		"gone":   func() error { return os.Remove(r.cfg.TokenFile) },
		"empty":  func() error { return os.WriteFile(r.cfg.TokenFile, nil, 0o644) },
		"broken": func() error { return os.WriteFile(r.cfg.TokenFile, []byte(first[:len(first)-8]), 0o600) },
		"old":    func() error { r.clock.add(ownerTTL - ownerMin + time.Hour); return nil },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		before := first
		r = r.reopen(t)
		if r.ownerToken(t) == before && name != "gone" && name != "empty" && name != "broken" {
			t.Errorf("%s: kept", name)
		}
		if p, err := r.Verify(t.Context(), r.ownerToken(t)); err != nil || !slices.Equal(p.Scopes, []string{"*"}) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
		if info, err := os.Stat(r.cfg.TokenFile); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// TestOwnerTokenNamesWhereTheServerIsReached has the address known only after the token
// was made.
func TestOwnerTokenNamesWhereTheServerIsReached(t *testing.T) {
	r := openRoom(t)
	early := r.ownerToken(t)
	if err := r.Reached(t.Context(), "http://127.0.0.1:4242"); err != nil {
		t.Fatal(err)
	}
	token := r.ownerToken(t)
	c, err := r.read(token)
	if err != nil || c.Issuer != "http://127.0.0.1:4242" {
		t.Errorf("%+v, %v", c, err)
	}
	before, err := r.read(early)
	if err != nil || before.ID != c.ID {
		t.Errorf("it is another token, which revoking the first would leave: %+v, %v", before, err)
	}
	for _, text := range []string{early, token} {
		if p, err := r.Verify(t.Context(), text); err != nil || p.Sub != "owner" {
			t.Errorf("%+v, %v", p, err)
		}
	}
	r = r.reopen(t)
	if err := r.Reached(t.Context(), "http://127.0.0.1:4343"); err != nil {
		t.Fatal(err)
	}
	if r.ownerToken(t) != token {
		t.Error("a good token was made again because the server moved")
	}
}

func TestOpenRefusesWhatItCannotTrust(t *testing.T) {
	for name, spoil := range map[string]func(r *testRoom) error{
		"token.key is not a key": func(r *testRoom) error {
			return os.WriteFile(filepath.Join(r.cfg.Dir, "token.key"), []byte("x"), 0o600)
		},
		"ca.key is not a key":      func(r *testRoom) error { return os.WriteFile(filepath.Join(r.cfg.Dir, "ca.key"), []byte("x"), 0o600) },
		"ca.crt is of another key": func(r *testRoom) error { return os.Remove(filepath.Join(r.cfg.Dir, "ca.key")) },
		"vault.key is short": func(r *testRoom) error {
			return os.WriteFile(filepath.Join(r.cfg.Dir, "vault.key"), []byte("x"), 0o600)
		},
		"vault.key is a link": func(r *testRoom) error {
			file := filepath.Join(r.cfg.Dir, "vault.key")
			if err := os.Rename(file, file+"2"); err != nil {
				return err
			}
			return os.Symlink(file+"2", file)
		},
		"the issuer is no URL": func(r *testRoom) error { r.cfg.Issuer = "fragua"; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			r := openRoom(t)
			if err := spoil(r); err != nil {
				t.Fatal(err)
			}
			if again, err := Open(t.Context(), r.cfg); err == nil {
				again.Close()
				t.Error("opened")
			}
		})
	}
}

func TestServices(t *testing.T) {
	r := openRoom(t)
	for name, q := range map[string]authz.Question{
		"scheduling": {Action: "Node::schedule", Resource: authz.Resource{Type: "Node", ID: "n", Tenant: Home}, Context: map[string]any{"resources_available": true}},
		"worker":     {Action: "Worker::create", Resource: authz.Resource{Type: "Worker", ID: "w", Tenant: Home, Attrs: map[string]any{"provider_authorized": true}}},
		"execution":  {Action: "Job::execute", Resource: authz.Resource{Type: "Job", ID: "j", Tenant: Home, Attrs: map[string]any{"environment_permitted": true}}},
	} {
		for _, who := range []string{"scheduling", "worker", "execution", "console"} {
			q.Principal = r.Service(who)
			if a := r.Decide(t.Context(), q); a.Permit != (who == name) {
				t.Errorf("%s by %s: %v %s", q.Action, who, a.Permit, a.Reason)
			}
		}
	}
}

func TestRunEnds(t *testing.T) {
	r := openRoom(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
