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

// TestWhatIsRefusedIsReadToItsEnd lets a sender find out that what it sends is damaged,
// which says more than that it is no archive.
func TestWhatIsRefusedIsReadToItsEnd(t *testing.T) {
	j := &job{order: agentapi.Order{Dir: t.TempDir()}}
	if err := os.MkdirAll(j.workspace(), 0o755); err != nil {
		t.Fatal(err)
	}
	w, body := httptest.NewRecorder(), bytes.NewReader(bytes.Repeat([]byte("no archive"), 100_000))
	j.serveWorkspace(w, httptest.NewRequest(http.MethodPut, "/workspace", body))
	if w.Code != http.StatusUnprocessableEntity || body.Len() != 0 {
		t.Errorf("%d, and %d bytes are left", w.Code, body.Len())
	}
}

// headers returns an archive of entries; those of files have "text" in them.
func headers(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Typeflag == tar.TypeReg {
			h.Mode, h.Size = 0o644, 4
		}
		err := out.WriteHeader(&h)
		if h.Size > 0 && err == nil {
			_, err = io.WriteString(out, "text")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestLinksAreLaidOut(t *testing.T) {
	in := headers(t, tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "x"}},
		tar.Header{Typeflag: tar.TypeReg, Name: "./a"}, tar.Header{Typeflag: tar.TypeLink, Name: "./sub/b", Linkname: "./a"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "c", Linkname: "sub/b"}, tar.Header{Typeflag: tar.TypeLink, Name: "a", Linkname: "a"})
	dir := t.TempDir()
	for range 2 { // the second time as after an archive that broke off
		if err := unpack(dir, bytes.NewReader(in)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "sub/b", "c"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != "text" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	a, err := os.Stat(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.Stat(filepath.Join(dir, "sub", "b")); err != nil || !os.SameFile(a, b) {
		t.Errorf("they are two files: %v", err)
	}
}

// TestAFileInThePlaceOfALinkIsAnother has an archive that names a file a second time.
func TestAFileInThePlaceOfALinkIsAnother(t *testing.T) {
	in := headers(t, tar.Header{Typeflag: tar.TypeReg, Name: "a"}, tar.Header{Typeflag: tar.TypeLink, Name: "b", Linkname: "a"}, tar.Header{Typeflag: tar.TypeReg, Name: "b"})
	dir := t.TempDir()
	if err := unpack(dir, bytes.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	a, err := os.Stat(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.Stat(filepath.Join(dir, "b")); err != nil || os.SameFile(a, b) {
		t.Errorf("both were written: %v", err)
	}
}

func TestWhatCannotBeLaidOutIsNamed(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, entries := range map[string][]tar.Header{
		"x/pipe":   {{Typeflag: tar.TypeFifo, Name: "x/pipe"}},
		"x/device": {{Typeflag: tar.TypeChar, Name: "x/device"}},
		"x/block":  {{Typeflag: tar.TypeBlock, Name: "x/block"}},
		"x/none":   {{Typeflag: tar.TypeLink, Name: "x/none", Linkname: "nothing"}},
		"x/folder": {{Typeflag: tar.TypeDir, Name: "d"}, {Typeflag: tar.TypeLink, Name: "x/folder", Linkname: "d"}},
		"x/up":     {{Typeflag: tar.TypeLink, Name: "x/up", Linkname: "../file"}},
		"x/away":   {{Typeflag: tar.TypeLink, Name: "x/away", Linkname: filepath.Join(outside, "file")}},
		"x/round":  {{Typeflag: tar.TypeSymlink, Name: "s", Linkname: outside}, {Typeflag: tar.TypeLink, Name: "x/round", Linkname: "s/file"}},
		"s/into":   {{Typeflag: tar.TypeReg, Name: "a"}, {Typeflag: tar.TypeSymlink, Name: "s", Linkname: outside}, {Typeflag: tar.TypeLink, Name: "s/into", Linkname: "a"}},
	} {
		dir := t.TempDir()
		if err := unpack(dir, bytes.NewReader(headers(t, entries...))); err == nil || !strings.Contains(err.Error(), `"`+name+`"`) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is there", name)
		}
	}
	if found, err := os.ReadDir(outside); err != nil || len(found) != 1 {
		t.Errorf("outside lie %v, %v", found, err)
	}
}
