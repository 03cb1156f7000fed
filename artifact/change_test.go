package artifact

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/contract/artifacts"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/blob"
)

func TestPromoteSaysItOnceForEachEnvironment(t *testing.T) {
	h := newHouse(t)
	h.keep("r|a|1", "content")
	for _, env := range []string{"test", "test", "production"} {
		h.want(200, "POST", "/artifacts/r/a/1/promote", fmt.Sprintf(`{"env":%q}`, env))
	}
	if a := h.read("/artifacts/r/a/1"); !slices.Equal(a.Environments, []string{"test", "production"}) {
		t.Errorf("it may be used in %q", a.Environments)
	}
	if n := h.count("ArtifactPromoted"); n != 2 {
		t.Errorf("said %d times", n)
	}
	for _, body := range []string{`{}`, `{"env":""}`, `{"env":"../x"}`} {
		h.want(422, "POST", "/artifacts/r/a/1/promote", body)
	}
	h.want(404, "POST", "/artifacts/r/none/1/promote", `{"env":"test"}`)
}

// TestWhatIsMadeAnewIsSaidAnew deletes an artifact, and makes one of the same name and
// content: what is said of the two must not pass for repetition.
func TestWhatIsMadeAnewIsSaidAnew(t *testing.T) {
	h := newHouse(t)
	for range 2 {
		h.keep("r|a|1", "content")
		h.want(200, "POST", "/artifacts/r/a/1/promote", `{"env":"test"}`)
		h.want(200, "DELETE", "/artifacts/r/a/1", "")
	}
	ids := map[string]map[ident.Event]bool{"ArtifactUploaded": {}, "ArtifactPromoted": {}}
	for _, e := range h.said.All() {
		if of := ids[e.Type]; of != nil {
			of[e.ID] = true
		}
	}
	for typ, of := range ids {
		if len(of) != 2 {
			t.Errorf("%s has the ids %v, want two", typ, of)
		}
	}
}

func TestRangesOfVersionsAreSemantic(t *testing.T) {
	h := newHouse(t)
	h.keep("r|a|1", "content")
	for constraint, status := range map[string]int{"": 200, "^1.2": 200, ">=1.0, <2.0": 200, "1.x": 200, "not semver": 422, "^": 422} {
		body := fmt.Sprintf(`{"items":[{"from":{"repository":"r","name":"a","version":"1"},"to":[],"constraint":%q}]}`, constraint)
		h.want(status, "PUT", "/artifacts/r/a/1/dependencies", body)
	}
}

func TestADamagedContentIsFoundAndNotPromoted(t *testing.T) {
	h := newHouse(t)
	h.keep("r|a|1", "content")
	h.want(200, "POST", "/artifacts/r/a/1/validate", "")
	files, err := filepath.Glob(filepath.Join(h.dir, "artifacts", "acme", "*", "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.WriteFile(files[0], []byte("cOntent"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.want(200, "POST", "/artifacts/r/a/1/validate", "")
	if a := h.read("/artifacts/r/a/1"); a.Status != "corrupt" {
		t.Errorf("it is %s", a.Status)
	}
	h.want(409, "POST", "/artifacts/r/a/1/promote", `{"env":"test"}`)
	w := h.want(409, "GET", "/artifacts/r/a/1/content", "")
	if kind := w.Header().Get("Content-Type"); kind != "application/problem+json" || !strings.Contains(w.Body.String(), "another version") {
		t.Errorf("its content: %s %s", kind, w.Body)
	}
	if f, err := h.room.Keeper().Open(t.Context(), "acme", spec.ArtifactRef{Repository: "r", Name: "a", Version: "1"}); err == nil {
		f.Close()
		t.Error("a job may start from it")
	}
	// The right content, uploaded again, mends it.
	if code := h.put("r|a|1", sum256("content"), strings.NewReader("content")); code != 200 {
		t.Fatalf("again: %d", code)
	}
	h.want(200, "POST", "/artifacts/r/a/1/validate", "")
	h.want(200, "POST", "/artifacts/r/a/1/promote", `{"env":"test"}`)
	h.want(200, "GET", "/artifacts/r/a/1/content", "")
	if n := h.count("ArtifactValidated"); n != 3 {
		t.Errorf("said %d times", n)
	}
}

func TestAContentGoesWithItsLastName(t *testing.T) {
	h := newHouse(t)
	h.keep("r|a|1", "shared")
	h.keep("r|b|1", "shared")
	h.want(200, "DELETE", "/artifacts/r/a/1", "")
	h.want(404, "DELETE", "/artifacts/r/a/1", "")
	h.want(404, "GET", "/artifacts/r/a/1/content", "")
	if got := h.want(200, "GET", "/artifacts/r/b/1/content", "").Body.String(); got != "shared" {
		t.Errorf("the other one is %q", got)
	}
	h.want(200, "DELETE", "/artifacts/r/b/1", "")
	h.wantFiles()
	h.keep("r|a|1", "something else") // the name is free
}

// TestAContentThatNoArtifactHasIsDeletedAtTheNextStart begins as a process that was
// killed between the content and the row.
func TestAContentThatNoArtifactHasIsDeletedAtTheNextStart(t *testing.T) {
	h := newHouse(t)
	h.keep("r|a|1", "kept")
	in, err := h.room.store.Receive(t.Context(), strings.NewReader("orphan"), 100, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Keep("acme"); err != nil {
		t.Fatal(err)
	}
	h.wantFiles("kept", "orphan")
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error)
	go func() { over <- h.room.Run(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		f, err := h.room.store.Get("acme", in.Sum)
		if errors.Is(err, blob.ErrNotFound) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if time.Now().After(deadline) {
			t.Fatal("it is still there")
		}
	}
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
	h.wantFiles("kept")
}

func TestAForeignArtifactIsNotThere(t *testing.T) {
	h := newHouse(t)
	h.keep("r|a|1", "content")
	for _, c := range [][3]string{
		{"GET", "", ""}, {"GET", "/content", ""}, {"DELETE", "", ""}, {"POST", "/promote", `{"env":"test"}`},
		{"POST", "/validate", ""}, {"GET", "/dependencies", ""}, {"PUT", "/dependencies", `{"items":[]}`},
	} {
		mine, none := "/artifacts/r/a/1"+c[1], "/artifacts/r/none/1"+c[1]
		foreign := h.callAs("other", c[0], mine, "application/json", strings.NewReader(c[2]))
		absent := h.callAs("other", c[0], none, "application/json", strings.NewReader(c[2]))
		if foreign.Code != 404 || !bytes.Equal(foreign.Body.Bytes(), absent.Body.Bytes()) {
			t.Errorf("%s %s: %d %s, and %s where there is none", c[0], mine, foreign.Code, foreign.Body, absent.Body)
		}
	}
	if w := h.callAs("other", "GET", "/artifacts", "", nil); strings.Contains(w.Body.String(), `"name"`) {
		t.Errorf("a foreign listing: %s", w.Body)
	}
	// The same content and name are another artifact there, and end alone.
	q := "/artifacts?repository=r&name=a&version=1&checksum=" + sum256("content")
	if w := h.callAs("other", "POST", q, "application/octet-stream", strings.NewReader("content")); w.Code != 201 {
		t.Fatalf("its own: %d", w.Code)
	}
	h.wantFiles("content", "content")
	if w := h.callAs("other", "DELETE", "/artifacts/r/a/1", "", nil); w.Code != 200 {
		t.Errorf("delete its own: %d", w.Code)
	}
	if got := h.want(200, "GET", "/artifacts/r/a/1/content", "").Body.String(); got != "content" {
		t.Errorf("ours is %q", got)
	}
}

func TestAListingIsWholeHoweverItIsPaged(t *testing.T) {
	h := newHouse(t)
	var want []string
	for _, r := range []string{"a", "b"} {
		for _, n := range []string{"x", "x-1", "y"} {
			for _, v := range []string{"1", "1.0", "2"} {
				h.keep(r+"|"+n+"|"+v, "c")
				want = append(want, r+"/"+n+"/"+v)
			}
		}
	}
	for n := 1; n <= len(want)+1; n++ {
		var got []string
		for cursor := ""; ; {
			var p struct {
				Items []Artifact `json:"items"`
				Next  string     `json:"next_cursor"`
			}
			w := h.want(200, "GET", fmt.Sprintf("/artifacts?limit=%d&cursor=%s", n, cursor), "")
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
				t.Fatal(err)
			}
			for _, a := range p.Items {
				got = append(got, a.ArtifactRef.String())
			}
			if cursor = p.Next; cursor == "" || len(got) > 100 {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d at a time: %v", n, got)
		}
	}
}

func TestARoomKeepsAndOpensForOthers(t *testing.T) {
	h := newHouse(t)
	k, ref := h.room.Keeper(), spec.ArtifactRef{Repository: "r", Name: "a", Version: "1"}
	for range 2 {
		if err := k.Keep(t.Context(), "acme", ref, strings.NewReader("content")); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Keep(t.Context(), "acme", ref, strings.NewReader("other")); !errors.Is(err, artifacts.ErrConflict) || !strings.Contains(err.Error(), "give another version, or leave it out") {
		t.Errorf("another content: %v", err)
	}
	if err := k.Keep(t.Context(), "acme", spec.ArtifactRef{Repository: "..", Name: "a", Version: "1"}, strings.NewReader("x")); err == nil {
		t.Error("a name that leads away was taken")
	}
	h.wantFiles("content")
	r, err := k.Open(t.Context(), "acme", ref)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := k.Open(t.Context(), "other", ref); !errors.Is(err, artifacts.ErrNotFound) {
		t.Errorf("a foreign one: %v", err)
	}
}
