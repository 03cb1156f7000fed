package stories

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/test/program"
)

// changes are what is another in each run.
var changes = regexp.MustCompile(`(\d+m)?\d+(\.\d+)?m?s\b|(run|job)_\w+`)

// TestReadmeShowsWhatRunPrints compares the sample of README.md with a real run,
// whose jobs may take turns otherwise.
func TestReadmeShowsWhatRunPrints(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("no python3")
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, sample, _ := strings.Cut(string(readme), "```\n$ fragua run examples/python\n")
	sample, _, found := strings.Cut(sample, "```")
	if !found {
		t.Fatal("README.md has no sample of fragua run examples/python")
	}
	home := t.TempDir()
	cmd := exec.Command(exe, "run", "examples/python")
	cmd.Dir = "../.."
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "XDG_") || strings.HasPrefix(v, "FRAGUA_") }), "HOME="+home, "TMPDIR="+filepath.Dir(exe))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := func(text string) []string {
		text = changes.ReplaceAllString(text, "…")
		all := strings.Split(strings.TrimSpace(text), "\n")
		for i := range all {
			all[i] = strings.TrimRight(all[i], " ") // editors take it away
		}
		slices.Sort(all)
		return all
	}
	if got, want := lines(string(out)), lines(sample); !slices.Equal(got, want) {
		t.Errorf("README.md shows\n%s\nand it is\n%s", sample, out)
	}
}

// TestReadmesJobSucceeds submits what README.md has curl submit.
func TestReadmesJobSucceeds(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	sample := regexp.MustCompile(`-d '(\{.*\})' http://.*/jobs\n`).FindSubmatch(readme)
	if sample == nil {
		t.Fatal("README.md has no job for curl")
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(t.Context(), readyTime+awaitTime)
	defer cancel()
	s, err := program.Start(ctx, exe, t.TempDir(), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(stopTime); err != nil {
			t.Error(err)
		}
	})
	var job struct {
		ID      string          `json:"job_id"`
		State   string          `json:"state"`
		Failure json.RawMessage `json:"failure"`
	}
	if _, err := s.Call(ctx, http.DefaultClient, http.MethodPost, "/jobs", json.RawMessage(sample[1]), &job); err != nil {
		t.Fatal(err)
	}
	for each := time.NewTicker(awaitEach); job.State != "SUCCEEDED"; <-each.C {
		if _, err := s.Call(ctx, http.DefaultClient, http.MethodGet, "/jobs/"+job.ID, nil, &job); err != nil {
			t.Fatal(err)
		}
		if job.State == "FAILED" {
			t.Fatalf("%s failed: %s", sample[1], job.Failure)
		}
	}
}
