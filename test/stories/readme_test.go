package stories

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
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
