package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"fragua.dev/fragua/contract/agentapi"
)

// anArchive returns a tar archive of a folder and a file in it, as tar -C dir . writes
// it, followed by n more bytes of content.
func anArchive(t *testing.T, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	content := "app" + strings.Repeat("x", n)
	for _, h := range []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "./dist/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "./dist/app", Mode: 0o755, Size: int64(len(content))},
	} {
		if err := out.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := out.Write([]byte(content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(b)
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstandard(t *testing.T, b []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	return z.EncodeAll(b, nil)
}

func TestArchivesOfEachKindAreUnpacked(t *testing.T) {
	b := anArchive(t, 1<<20)
	for name, in := range map[string][]byte{"tar": b, "tar.gz": gzipped(t, b), "tar.zst": zstandard(t, b)} {
		dir := t.TempDir()
		if err := unpack(dir, bytes.NewReader(in)); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		app := filepath.Join(dir, "dist", "app")
		got, err := os.ReadFile(app)
		if err != nil || len(got) != 3+1<<20 {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if info, err := os.Stat(app); err == nil && info.Mode().Perm()&0o111 == 0 {
			t.Errorf("%s: it cannot be run any more: %v", name, info.Mode())
		}
	}
}

func TestAFolderOfNothingIsUnpacked(t *testing.T) {
	var b bytes.Buffer
	if err := tar.NewWriter(&b).Close(); err != nil {
		t.Fatal(err)
	}
	for _, in := range [][]byte{b.Bytes(), gzipped(t, b.Bytes()), zstandard(t, b.Bytes())} {
		if err := unpack(t.TempDir(), bytes.NewReader(in)); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatIsNoArchiveIsRefusedWithAReason(t *testing.T) {
	text := bytes.Repeat([]byte("no archive"), 1000)
	for name, in := range map[string][]byte{
		"nothing": nil, "a byte": {0x1f}, "text": text, "text, gzip": gzipped(t, text), "text, zstd": zstandard(t, text), "zip": []byte("PK\x03\x04 and so on"),
	} {
		if err := unpack(t.TempDir(), bytes.NewReader(in)); !errors.Is(err, errNoArchive) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := anArchive(t, 1<<20)
	for name, in := range map[string][]byte{"tar": b, "gzip": gzipped(t, b), "zstd": zstandard(t, b)} {
		if err := unpack(t.TempDir(), bytes.NewReader(in[:len(in)/2])); err == nil {
			t.Errorf("half of a %s: no error", name)
		}
	}
}

func TestNoNameLeadsOutOfTheWorkspace(t *testing.T) {
	for _, name := range []string{"../x", "/x", "a/../../x"} {
		var b bytes.Buffer
		out := tar.NewWriter(&b)
		err := errors.Join(out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}), out.Close())
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range [][]byte{b.Bytes(), gzipped(t, b.Bytes()), zstandard(t, b.Bytes())} {
			if err := unpack(t.TempDir(), bytes.NewReader(in)); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
	}
}

// TestAnArchiveThatBreaksOffBehindItsEndIsRefused has a sender find out at the very end
// that what it sent is not what was kept.
func TestAnArchiveThatBreaksOffBehindItsEndIsRefused(t *testing.T) {
	b := anArchive(t, 10)
	for name, in := range map[string][]byte{"tar": b, "gzip": gzipped(t, b), "zstd": zstandard(t, b)} {
		j := &job{order: agentapi.Order{Dir: t.TempDir()}}
		if err := os.MkdirAll(j.workspace(), 0o755); err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		padded := append(bytes.Clone(in), make([]byte, 64<<10)...)
		body := io.MultiReader(bytes.NewReader(padded), iotest.ErrReader(io.ErrUnexpectedEOF))
		j.serveWorkspace(w, httptest.NewRequest(http.MethodPut, "/workspace", body))
		if w.Code != http.StatusUnprocessableEntity || j.filled {
			t.Errorf("%s: %d, %s", name, w.Code, w.Body)
		}
		j.serveWorkspace(httptest.NewRecorder(), httptest.NewRequest(http.MethodPut, "/workspace", bytes.NewReader(in)))
		if !j.filled {
			t.Errorf("%s: it cannot be sent again", name)
		}
	}
}
