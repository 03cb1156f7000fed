package agent

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fragua.dev/fragua/contract/agentapi"
)

// workspace returns a job with a workspace that holds a file, a folder, and things
// that are neither.
func workspace(t *testing.T) *job {
	t.Helper()
	j := &job{order: agentapi.Order{Dir: t.TempDir()}}
	at := func(name string) string { return filepath.Join(j.workspace(), name) }
	l := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	l(os.MkdirAll(at("dist/sub"), 0o755))
	l(os.WriteFile(at("app"), []byte("app"), 0o644))
	l(os.WriteFile(at("dist/b"), []byte("bb"), 0o755))
	l(os.WriteFile(at("dist/sub/c"), []byte("ccc"), 0o644))
	l(os.Symlink("b", at("dist/link")))
	l(syscall.Mkfifo(at("pipe"), 0o644))
	l(syscall.Mkfifo(at("dist/pipe"), 0o644))
	// A socket's name has room for 107 bytes, and the test's folder may have more: so it
	// is bound by way of a short link.
	short, err := os.MkdirTemp("/tmp", "s")
	l(err)
	t.Cleanup(func() { os.RemoveAll(short) })
	l(os.Symlink(at(""), short+"/d"))
	s, err := net.Listen("unix", short+"/d/socket")
	l(err)
	t.Cleanup(func() { s.Close() })
	return j
}

// get asks for a path, for as long as no answer should take.
func get(t *testing.T, j *job, path string) *httptest.ResponseRecorder {
	t.Helper()
	w, done := httptest.NewRecorder(), make(chan struct{})
	go func() {
		defer close(done)
		j.serveFile(w, httptest.NewRequest(http.MethodGet, "/files?path="+path, nil))
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatalf("%s: no answer", path)
	}
	return w
}

func TestWhyAFileCannotBeHadIsTold(t *testing.T) {
	j := workspace(t)
	for link, to := range map[string]string{"out": "/etc/passwd", "lost": "nothing"} {
		if err := os.Symlink(to, filepath.Join(j.workspace(), link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"none": "no such file", "out": "out of the workspace", "lost": "leads to nothing"} {
		if w := get(t, j, name); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

func TestOnlyFilesAndFoldersAreKept(t *testing.T) {
	j := workspace(t)
	if w := get(t, j, "app"); w.Code != http.StatusOK || w.Body.String() != "app" {
		t.Errorf("a file: %d %q", w.Code, w.Body)
	}
	for _, path := range []string{"pipe", "socket"} {
		if w := get(t, j, path); w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "neither a file nor a folder") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	var names []string
	in := tar.NewReader(get(t, j, "dist").Body)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if want := []string{"b", "link", "sub/", "sub/c"}; !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
}

// TestSameContentMakesTheSameArchive compares archives of folders that were made
// at different times.
func TestSameContentMakesTheSameArchive(t *testing.T) {
	one, two := workspace(t), workspace(t)
	old := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	for _, name := range []string{"dist/b", "dist/sub", "dist"} {
		if err := os.Chtimes(filepath.Join(two.workspace(), name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := get(t, one, "dist").Body.Bytes(), get(t, two, "dist").Body.Bytes(); !bytes.Equal(a, b) {
		t.Error("the archives differ")
	}
}
