package artifact

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/httpapi/apitest"
)

// damage makes the only content that is kept into another one.
func (h *house) damage(content string) {
	h.t.Helper()
	files, err := filepath.Glob(filepath.Join(h.dir, "artifacts", "acme", "*", "*"))
	if err != nil || len(files) != 1 {
		h.t.Fatal(files, err)
	}
	if err := os.WriteFile(files[0], []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// download reads a content over a connection, of which it tells how it ended.
func (h *house) download(path, ranges string) (got []byte, err error) {
	h.t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mux.ServeHTTP(w, r.WithContext(apitest.As(r.Context(), "acme")))
	}))
	defer server.Close()
	r, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, server.URL+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	if ranges != "" {
		r.Header.Set("Range", ranges)
	}
	resp, err := server.Client().Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err = io.ReadAll(resp.Body)
	return got, err
}

func TestADamagedContentIsNeverReadToItsEnd(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 10_000)
	for name, c := range map[string]struct{ kept, damaged, ranges string }{
		"a word":          {"content", "cOntent", ""},
		"the first byte":  {large, "x" + large[1:], ""},
		"the last byte":   {large, large[:len(large)-1] + "x", ""},
		"a range of all":  {large, "x" + large[1:], "bytes=0-"},
		"another measure": {large, "x" + large[1:], "lines=1-2"},
	} {
		h := newHouse(t)
		var log bytes.Buffer
		h.room.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		h.keep("r|a|1", c.kept)
		h.damage(c.damaged)
		if got, err := h.download("/artifacts/r/a/1/content", c.ranges); !errors.Is(err, io.ErrUnexpectedEOF) || len(got) >= len(c.kept) {
			t.Errorf("%s: %d of %d bytes, %v", name, len(got), len(c.kept), err)
		}
		if s := log.String(); strings.Count(s, "level=ERROR") != 1 || !strings.Contains(s, "artifact=r/a/1") {
			t.Errorf("%s: the log says %q", name, s)
		}
		// The next one is told at once.
		if w := h.callAs("acme", "GET", "/artifacts/r/a/1/content", "", nil); w.Code != 409 {
			t.Errorf("%s: then %d", name, w.Code)
		}
		if n := h.count("ArtifactValidated"); n != 1 {
			t.Errorf("%s: said %d times", name, n)
		}
	}
}

func TestAContentOfAnotherLengthIsNotBegun(t *testing.T) {
	for _, damaged := range []string{"", "conten", "contentcontent"} {
		h := newHouse(t)
		h.keep("r|a|1", "content")
		h.damage(damaged)
		h.want(409, "GET", "/artifacts/r/a/1/content", "")
		if a := h.read("/artifacts/r/a/1"); a.Status != "corrupt" {
			t.Errorf("%q: it is %s", damaged, a.Status)
		}
	}
}

func TestAPartOfAContentIsItsBytes(t *testing.T) {
	h := newHouse(t)
	h.keep("r|a|1", "content")
	for ranges, want := range map[string]string{"": "content", "bytes=0-": "content", "bytes=0-2": "con", "bytes=3-": "tent", "bytes=-2": "nt"} {
		if got, err := h.download("/artifacts/r/a/1/content", ranges); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", ranges, got, err)
		}
	}
}

func TestNoJobStartsFromADamagedContent(t *testing.T) {
	h := newHouse(t)
	h.keep("r|a|1", "content")
	h.damage("cOntent")
	k, ref := h.room.Keeper(), spec.ArtifactRef{Repository: "r", Name: "a", Version: "1"}
	r, err := k.Open(t.Context(), "acme", ref)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err == nil || len(got) >= len("content") {
		t.Errorf("%q, %v", got, err)
	}
	if r, err := k.Open(t.Context(), "acme", ref); !errors.Is(err, errCorrupt) {
		r.Close()
		t.Errorf("once more: %v", err)
	}
}
