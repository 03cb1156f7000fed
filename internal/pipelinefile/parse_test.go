package pipelinefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/contract/spec"
)

var update = flag.Bool("update", false, "write what is found as what is wanted")

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; go test -run Golden -update rewrites it\ngot:\n%s", path, got)
	}
}

func files(t *testing.T, dir string) (out []string) {
	t.Helper()
	for _, pattern := range []string{"*.yaml", "*.json"} {
		found, err := filepath.Glob(filepath.Join("testdata", dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, found...)
	}
	if len(out) < 3 {
		t.Fatalf("%d files in testdata/%s", len(out), dir)
	}
	return out
}

// TestGoldenGood reads pipelines of every form, and compares what the API would get.
func TestGoldenGood(t *testing.T) {
	for _, path := range files(t, "good") {
		p, err := Load(path)
		if err != nil {
			t.Errorf("%s", err)
			continue
		}
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(p); err != nil {
			t.Fatal(err)
		}
		golden(t, path+".golden", b.Bytes())
		// What the API gets is a pipeline file, too, and the same one.
		again, err := Parse("again.json", b.Bytes())
		if err != nil {
			t.Errorf("%s: its JSON form: %s", path, err)
		}
		if a, _ := json.Marshal(again); !bytes.Equal(a, compact(t, b.Bytes())) {
			t.Errorf("%s: its JSON form reads as %s", path, a)
		}
	}
}

func compact(t *testing.T, b []byte) []byte {
	t.Helper()
	var p spec.Pipeline
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestGoldenBad tells everything that is wrong with files that are no pipelines.
func TestGoldenBad(t *testing.T) {
	for _, path := range files(t, "bad") {
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Parse(filepath.Base(path), src)
		if err == nil {
			t.Errorf("%s: is no pipeline, and was taken for one", path)
			continue
		}
		if _, ok := errors.AsType[*Error](err); !ok {
			t.Errorf("%s: %T: %v", path, err, err)
		}
		golden(t, path+".golden", []byte(err.Error()+"\n"))
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	if _, err := Find(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in an empty folder: %v", err)
	}
	for _, name := range []string{".fragua.yaml", "fragua.yaml"} { // the plain one wins
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Find(dir); err != nil || got != path {
			t.Errorf("Find: %s, %v; want %s", got, err, path)
		}
	}
}

// TestBombs refuses, soon, files that would be large when they are followed.
func TestBombs(t *testing.T) {
	bomb := strings.Builder{}
	bomb.WriteString("a: &a [x,x,x,x,x,x,x,x,x]\n")
	for c := 'b'; c <= 'i'; c++ {
		prev := string(c - 1)
		bomb.WriteString(string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+prev+",", 9), ",") + "]\n")
	}
	cases := map[string]string{
		"aliases":        bomb.String() + "name: x\n",
		"brackets":       strings.Repeat("[", 500_000),
		"closed":         strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000),
		"braces":         strings.Repeat("{a: ", 200_000),
		"dashes":         strings.Repeat("- ", 500_000),
		"questions":      strings.Repeat("? ", 500_000),
		"anchors":        strings.Repeat("&a ", 300_000),
		"tags":           strings.Repeat("!!str ", 170_000),
		"long line":      "name: " + strings.Repeat("x", MaxBytes-6),
		"many keys":      "jobs:\n" + strings.Repeat("  a: {run: x}\n", 70_000),
		"many items":     "jobs: [" + strings.Repeat("1,", 500_000) + "]",
		"merges":         "a: &a {b: 1}\nc:\n" + strings.Repeat("  <<: *a\n", 100_000),
		"too large":      strings.Repeat("#", MaxBytes+1),
		"comments":       strings.Repeat("#\n", 500_000),
		"staircase":      staircase(1000),
		"deep json":      strings.Repeat(`{"a":`, 200_000),
		"deep json list": strings.Repeat("[", 1_000_000),
	}
	for name, src := range cases {
		file := "x.yaml"
		if strings.Contains(name, "json") {
			file = "x.json"
		}
		began := time.Now()
		if _, err := Parse(file, []byte(src)); err == nil {
			t.Errorf("%s: taken for a pipeline", name)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: refused after %v", name, took)
		} else if testing.Verbose() {
			t.Logf("%s: %v", name, took)
		}
	}
}

func staircase(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func FuzzParse(f *testing.F) {
	for _, dir := range []string{"good", "bad"} {
		found, err := filepath.Glob(filepath.Join("testdata", dir, "*"))
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range found {
			src, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src, strings.HasSuffix(path, ".json"))
		}
	}
	f.Fuzz(func(t *testing.T, src []byte, isJSON bool) {
		name := "x.yaml"
		if isJSON {
			name = "x.json"
		}
		p, err := Parse(name, src)
		if err == nil {
			if faults := p.Validate(); faults != nil {
				t.Fatalf("taken, though %v", faults)
			}
			return
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || len(e.Faults) == 0 {
			t.Fatalf("no faults: %v", err)
		}
		lines := bytes.Count(src, []byte("\n")) + 2
		for _, f := range e.Faults {
			if f.Line < 1 || f.Column < 1 || f.Line > lines || f.Message == "" {
				t.Fatalf("a fault in line %d of %d, column %d: %q", f.Line, lines, f.Column, f.Message)
			}
		}
		if e.Error() == "" {
			t.Fatal("says nothing")
		}
	})
}
