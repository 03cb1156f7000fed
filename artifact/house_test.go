package artifact

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lukechampine.com/blake3"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/httpapi/apitest"
)

const maxBytes = 1 << 20

// house is a room with its database, its folder and its API.
type house struct {
	t    *testing.T
	dir  string
	room *Room
	mux  *http.ServeMux
	said apitest.Said
}

func newHouse(t *testing.T) *house {
	h := &house{t: t, dir: t.TempDir()}
	var err error
	h.room, err = Open(t.Context(), Config{
		Dir: h.dir, Now: time.Now, IDs: ident.NewSource(time.Now), Log: slog.New(slog.DiscardHandler), Decider: apitest.Permit{}, MaxBytes: maxBytes,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.room.Close(); err != nil {
			t.Error(err)
		}
	})
	h.room.DB().OnCommit(h.said.Hear)
	h.mux = http.NewServeMux()
	h.room.Routes(httpapi.New(h.mux, "test"))
	return h
}

// count returns how many events of a type were said.
func (h *house) count(typ string) (n int) {
	for _, e := range h.said.All() {
		if e.Type == typ {
			n++
		}
	}
	return n
}

func (h *house) callAs(tenant, method, path, kind string, body io.Reader) *httptest.ResponseRecorder {
	h.t.Helper()
	return apitest.Call(h.mux, tenant, method, path, kind, body)
}

// want calls for the tenant acme, and fails the test on another status.
func (h *house) want(status int, method, path, body string) *httptest.ResponseRecorder {
	h.t.Helper()
	w := h.callAs("acme", method, path, "application/json", strings.NewReader(body))
	if w.Code != status {
		h.t.Fatalf("%s %s: %d, want %d: %s", method, path, w.Code, status, w.Body)
	}
	return w
}

func sum256(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func sum512(content string) string {
	sum := sha512.Sum512([]byte(content))
	return "sha512:" + hex.EncodeToString(sum[:])
}

func sumBlake3(content string) string {
	sum := blake3.Sum256([]byte(content))
	return "blake3:" + hex.EncodeToString(sum[:])
}

// put uploads content as ref, repository|name|version, with a checksum.
func (h *house) put(ref, checksum string, content io.Reader) int {
	h.t.Helper()
	p := strings.Split(ref, "|")
	q := url.Values{"repository": {p[0]}, "name": {p[1]}, "version": {p[2]}, "checksum": {checksum}}
	return h.callAs("acme", "POST", "/artifacts?"+q.Encode(), "application/octet-stream", content).Code
}

func (h *house) keep(ref, content string) {
	h.t.Helper()
	if code := h.put(ref, sum256(content), strings.NewReader(content)); code != 201 {
		h.t.Fatalf("%s: %d, want 201", ref, code)
	}
}

func (h *house) read(path string) Artifact {
	h.t.Helper()
	var a Artifact
	if err := json.Unmarshal(h.want(200, "GET", path, "").Body.Bytes(), &a); err != nil {
		h.t.Fatal(err)
	}
	return a
}

// wantFiles fails unless these contents lie in the room's folder, and nothing else:
// no upload that was not finished either.
func (h *house) wantFiles(want ...string) {
	h.t.Helper()
	left := map[string]int{}
	err := filepath.WalkDir(filepath.Join(h.dir, "artifacts"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		left[string(b)]++
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	for _, c := range want {
		left[c]--
	}
	for c, n := range left {
		if n != 0 {
			h.t.Errorf("%.20q lies there %+d times too often", c, n)
		}
	}
}
