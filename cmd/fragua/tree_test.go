package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestLinesOfLogsStandOnAScreen(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b[31mred\x1b[0m and \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\": "red and link",
		"progress 1%\rprogress 100%":                                      "progress 100%",
		"a\tb\x07":                                                        "a    b",
		"日本\xff":                                                          "日本\uFFFD",
		"\u202egpj.exe":                                                   "<U+202E>gpj.exe",
		strings.Repeat("x", 1000):                                         strings.Repeat("x", lineKept),
	} {
		if got := plainLine([]byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestLinesAreCutByColumns(t *testing.T) {
	for _, c := range []struct {
		in      string
		columns int
		want    string
		wide    int
	}{
		{"short", 10, "short", 5},
		{"much longer", 4, "much\x1b[0m", 4},
		{"日本語", 5, "日本\x1b[0m", 4},
		{"\x1b[31m✗ red\x1b[0m", 5, "\x1b[31m✗ red\x1b[0m", 5},
		{"e\u0301e\u0301e\u0301", 2, "e\u0301e\u0301\x1b[0m", 2},
	} {
		if got, wide := cut(c.in, c.columns); got != c.want || wide != c.wide {
			t.Errorf("%q in %d: %q, %d", c.in, c.columns, got, wide)
		}
	}
}

// demo is a run with a job of each kind.
func demo() *follower {
	r := &follower{name: "demo", began: time.Now(), jobs: map[string]*followed{}}
	add := func(id, state, code, message string, steps ...stepView) {
		j := jobView{ID: id, Name: id, State: state, Steps: steps}
		if code != "" {
			j.Failure = &failure{code, message}
		}
		log := &tail{}
		for _, l := range []string{"one", "two", "three", "four", "five"} {
			log.keep([]byte(l))
		}
		r.jobs[id], r.order = &followed{view: j, logs: map[string]*tail{"e": log}}, append(r.order, id)
	}
	add("lint", "SUCCEEDED", "", "", stepView{Name: "fmt", State: "COMPLETED", Exec: "e", Try: 2})
	add("unit", "FAILED", "exit", "it ended with exit code 3", stepView{Name: "build", State: "COMPLETED"}, stepView{Name: "test", State: "FAILED", Exec: "e"})
	add("slow", "RUNNING", "", "", stepView{Name: "wait", State: "STARTED", Exec: "e"})
	add("gone", "TERMINATED", "lost", "its worker was lost")
	add("next", "PENDING", "", "")
	return r
}

func TestWhatFailedIsOpenAndSaysWhose(t *testing.T) {
	text := strings.Join(demo().tree(view{tail: tailLines}), "\n")
	for _, want := range []string{
		"✓ lint  (fmt: try 2)\n", "✗ unit: in step test: it ended with exit code 3\n", "      ✓ build", "        │ one\n", "        │ five\n",
		"! gone: the platform failed, not the job: its worker was lost\n", "· next",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "✓ fmt") {
		t.Errorf("what succeeded is open:\n%s", text)
	}
}

func TestTheTreeFitsTheScreen(t *testing.T) {
	r := demo()
	for lines := 1; lines < 30; lines++ {
		if got := r.fit(lines); len(got) > lines {
			t.Errorf("%d lines on a screen of %d", len(got), lines)
		}
	}
	text := strings.Join(r.tree(view{tail: 1, last: true}), "\n")
	if next, unit := strings.Index(text, "· next"), strings.Index(text, "✗ unit"); next > unit {
		t.Errorf("at the end what failed does not stand last:\n%s", text)
	}
	text = strings.Join(r.fit(7), "\n")
	for _, want := range []string{"✗ unit", "● slow", "! gone", "✓ 1 succeeded", "· 1 pending"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestLogsGoOnBesideManyJobs has more jobs than a screen has lines: those that ended well
// are counted before the logs of the others go.
func TestLogsGoOnBesideManyJobs(t *testing.T) {
	r := demo()
	for i := range 30 {
		id := fmt.Sprint("more", i)
		f := newFollowed()
		f.view.Name, f.view.State = id, "SUCCEEDED"
		r.jobs[id], r.order = f, append(r.order, id)
	}
	text := strings.Join(r.fit(20), "\n")
	for _, want := range []string{"│ five", "● wait", "✓ 31 succeeded", "· 1 pending"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestAScreenThatGetsNarrowerIsDrawnOver(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "screen")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := newScreen(f, true) // no terminal: 80 columns
	s.drawn = []int{79, 81, 0}
	s.draw([]string{"now"}, false)
	b, err := os.ReadFile(f.Name())
	if want := "\x1b[4A\rnow\x1b[K\n\x1b[J"; err != nil || string(b) != want {
		t.Errorf("%q, want %q; %v", b, want, err)
	}
}

func TestHintsAreWordsOfAShell(t *testing.T) {
	for in, want := range map[string]string{"/a/b-c.d": "/a/b-c.d", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$(x)": "'$(x)'"} {
		if got := quote(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	t.Setenv("HOME", "/home/ann")
	for in, want := range map[string]string{"/home/ann/x": "~/x", "/home/ann/a b": "~/'a b'", "/home/anna": "/home/anna", "/srv": "/srv", "~/x": "'~/x'"} {
		if got := quotePath(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
