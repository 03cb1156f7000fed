package artifact

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestAnUploadIsKeptAsItCame(t *testing.T) {
	h := newHouse(t)
	content := "\x00binary\xff" + strings.Repeat("x", 100_000)
	for ref, sum := range map[string]string{"r|a|1": sum256(content), "r|b|1": sum512(content), "r|c|1": sumBlake3(content)} {
		if code := h.put(ref, sum, strings.NewReader(content)); code != 201 {
			t.Fatalf("%s: %d", ref, code)
		}
		path := "/artifacts/" + strings.ReplaceAll(ref, "|", "/")
		if a := h.read(path); a.Checksum.Algo+":"+a.Checksum.Value != sum || a.Size != int64(len(content)) || a.Status != "valid" || a.Owner != "ana" {
			t.Errorf("kept as %+v", a)
		}
		if got := h.want(200, "GET", path+"/content", "").Body.String(); got != content {
			t.Errorf("%s came back as %d other bytes", ref, len(got))
		}
		h.want(200, "POST", path+"/validate", "")
		if a := h.read(path); a.Status != "valid" {
			t.Errorf("%s is then %s", ref, a.Status)
		}
	}
	h.wantFiles(content) // once for all
	if n := h.count("ArtifactUploaded"); n != 3 {
		t.Errorf("said %d times", n)
	}
}

func TestAnotherChecksumKeepsNothing(t *testing.T) {
	h := newHouse(t)
	for _, sum := range []string{sum256("other"), sum512("other"), sumBlake3("other")} {
		if code := h.put("r|a|1", sum, strings.NewReader("content")); code != 422 {
			t.Errorf("%.10s: %d", sum, code)
		}
	}
	h.want(404, "GET", "/artifacts/r/a/1", "")
	h.wantFiles()
	if n := h.count("ArtifactUploaded"); n != 0 {
		t.Errorf("said %d times", n)
	}
}

func TestTheSameAgainIsTheFirstOne(t *testing.T) {
	h := newHouse(t)
	h.keep("r|a|1", "content")
	first := h.read("/artifacts/r/a/1")
	for _, sum := range []string{sum256("content"), sum512("content"), sumBlake3("content"), "sha256:" + strings.ToUpper(sum256("content")[7:]), strings.ToUpper(sum256("content"))} {
		if code := h.put("r|a|1", sum, strings.NewReader("content")); code != 200 {
			t.Errorf("%.10s: %d", sum, code)
		}
	}
	if a := h.read("/artifacts/r/a/1"); !a.Created.Equal(first.Created) || a.Checksum != first.Checksum {
		t.Errorf("it is now %+v", a)
	}
	h.wantFiles("content")
	if n := h.count("ArtifactUploaded"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

func TestAnotherContentUnderTheSameNameIsRefused(t *testing.T) {
	h := newHouse(t)
	h.keep("r|a|1", "content")
	h.keep("r|b|1", "shared")
	for _, other := range []string{"other", "shared"} {
		if code := h.put("r|a|1", sum256(other), strings.NewReader(other)); code != 409 {
			t.Errorf("%s: %d", other, code)
		}
	}
	if got := h.want(200, "GET", "/artifacts/r/a/1/content", "").Body.String(); got != "content" {
		t.Errorf("it is now %q", got)
	}
	h.wantFiles("content", "shared") // what was refused leaves nothing, and takes nothing away
}

func TestNamesLeadNowhere(t *testing.T) {
	h := newHouse(t)
	for _, name := range []string{"..", ".", "../x", "/etc", "a/b", `a\b`, "", " ", "-a", ".hidden", "a\n", "é", strings.Repeat("x", 129)} {
		for _, ref := range []string{name + "|a|1", "r|" + name + "|1", "r|a|" + name} {
			if code := h.put(ref, sum256("c"), strings.NewReader("c")); code != 422 && code != 400 {
				t.Errorf("%q: %d", ref, code)
			}
		}
	}
	for _, sum := range []string{"", "sha256:", "md5:00", "sha256:zz", sum256("c") + "00", "sha512:" + sum256("c")[7:], sum256("c")[7:], "blake3:", "blake3:" + sum512("c")[7:]} {
		if code := h.put("r|a|1", sum, strings.NewReader("c")); code != 422 {
			t.Errorf("checksum %q: %d", sum, code)
		}
	}
	h.wantFiles()
	h.keep("r|a|1", "c")
	for _, path := range []string{"/artifacts/../a/1", "/artifacts/r/%2e%2e/1/content", "/artifacts/r%2fa/a/1", "/artifacts/r/a/..%2f1"} {
		if w := h.callAs("acme", "GET", path, "", nil); w.Code < 400 && w.Code != 307 && w.Code != 301 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// broken yields some bytes, and then breaks off.
func broken(n int) io.Reader {
	return io.MultiReader(strings.NewReader(strings.Repeat("x", n)), cut{})
}

type cut struct{}

func (cut) Read([]byte) (int, error) { return 0, errors.New("the line is cut") }

func TestAnUploadThatBreaksOffLeavesNothing(t *testing.T) {
	h := newHouse(t)
	for _, n := range []int{0, 1, 300_000} {
		if code := h.put("r|a|1", sum256(strings.Repeat("x", n)), broken(n)); code != 400 {
			t.Errorf("after %d bytes: %d", n, code)
		}
	}
	h.wantFiles()
	h.want(404, "GET", "/artifacts/r/a/1", "")
}

// slow has not come in time, as the connection says.
type slow struct{}

func (slow) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

func TestAnUploadThatDoesNotComeInTimeLeavesNothing(t *testing.T) {
	h := newHouse(t)
	for _, n := range []int{0, 1, 300_000} {
		if code := h.put("r|a|1", sum256(strings.Repeat("x", n)), io.MultiReader(strings.NewReader(strings.Repeat("x", n)), slow{})); code != 408 {
			t.Errorf("after %d bytes: %d", n, code)
		}
	}
	h.wantFiles()
}

func TestAnUploadThatIsTooLargeLeavesNothing(t *testing.T) {
	h := newHouse(t)
	fits, over := strings.Repeat("x", maxBytes), strings.Repeat("x", maxBytes+1)
	if code := h.put("r|a|1", sum256(over), strings.NewReader(over)); code != 413 {
		t.Errorf("one byte too many: %d", code)
	}
	h.wantFiles()
	h.keep("r|a|1", fits)
	h.keep("r|empty|1", "")
}

// TestOneContentUnderManyNamesComesAndGoes uploads and deletes the same content at
// the same time: whatever has a row has its content.
func TestOneContentUnderManyNamesComesAndGoes(t *testing.T) {
	h := newHouse(t)
	var (
		all  sync.WaitGroup
		lost atomic.Int64
	)
	for _, ref := range []string{"r|a|1", "r|b|1", "r|c|1", "r|d|1"} {
		path := "/artifacts/" + strings.ReplaceAll(ref, "|", "/")
		all.Go(func() {
			for range 50 {
				if code := h.put(ref, sum256("shared"), strings.NewReader("shared")); code != 201 {
					t.Errorf("upload: %d", code)
				}
				if code := h.callAs("acme", "GET", path+"/content", "", nil).Code; code != 200 {
					lost.Add(1)
				}
				if code := h.callAs("acme", "DELETE", path, "", nil).Code; code != 200 {
					t.Errorf("delete: %d", code)
				}
			}
		})
	}
	all.Wait()
	if lost.Load() != 0 {
		t.Errorf("%d contents were gone while their artifacts were there", lost.Load())
	}
	h.wantFiles()
}

// TestBlake3IsThatOfOthers uploads with the sums that the algorithm's authors give.
func TestBlake3IsThatOfOthers(t *testing.T) {
	h := newHouse(t)
	for i, c := range [][2]string{
		{"", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"},
		{"abc", "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"},
	} {
		if code := h.put(fmt.Sprintf("r|a|%d", i), "blake3:"+c[1], strings.NewReader(c[0])); code != 201 {
			t.Errorf("%q: %d", c[0], code)
		}
	}
}
