package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// repository makes files, and of them a git repository.
func repository(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	git(t, dir, "init", "-q")
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	own := []string{"-C", dir, "-c", "protocol.file.allow=always", "-c", "user.name=t", "-c", "user.email=t@t"}
	if out, err := exec.Command("git", append(own, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("git %q: %v: %s", args, err, out)
	}
}

func TestRepositoriesWithinOthersTravel(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("there is no git")
	}
	lib, dir := t.TempDir(), t.TempDir()
	repository(t, lib, map[string]string{"code": "", "quiet": "", ".gitignore": "quiet\nsilent\n"})
	git(t, lib, "add", ".")
	git(t, lib, "commit", "-qm", "x")
	repository(t, dir, map[string]string{"main": "", "code": "", ".gitignore": "unseen\n"})
	git(t, dir, "submodule", "add", "-q", lib, "vendor/lib")
	git(t, dir, "submodule", "add", "-q", lib, "vendor/bare")
	git(t, dir, "submodule", "deinit", "-f", "vendor/bare")
	at := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	repository(t, at("vendor/lib/deep"), map[string]string{"code": "", "unseen": ""})
	repository(t, at("beside/it"), map[string]string{"code": "", "trash": "", ".gitignore": "trash\n"})
	repository(t, at("unseen"), map[string]string{"code": ""})
	repository(t, at("data"), map[string]string{"owner.token": "", "lock": "", "key": ""})
	for _, name := range []string{"vendor/lib/quiet", "vendor/lib/new", "vendor/lib/unseen"} {
		if err := os.WriteFile(at(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"pipe", "vendor/lib/pipe", "vendor/lib/silent", "beside/it/trash2"} {
		if err := syscall.Mkfifo(at(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A file that git knows, and a folder with a file in its place.
	git(t, dir, "add", "main")
	if err := os.Remove(at("main")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at("main"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("main/file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_INDEX_FILE", at(".git/index")) // as a hook has it

	names, left, err := files(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		".gitignore", ".gitmodules", "beside/it/.gitignore", "beside/it/code", "code", "main/file",
		"vendor/lib/.gitignore", "vendor/lib/code", "vendor/lib/deep/code", "vendor/lib/deep/unseen", "vendor/lib/new", "vendor/lib/unseen",
	}
	if !slices.Equal(names, want) {
		t.Errorf("%q\ntravel, want\n%q", names, want)
	}
	want = []string{
		"beside/it/trash2, which is neither", "data, the data folder", "pipe, which is neither", "vendor/bare, a git repository that is not checked out", "vendor/lib/pipe, which is neither",
	}
	slices.Sort(left)
	if !slices.EqualFunc(left, want, strings.HasPrefix) {
		t.Errorf("%q\nstay, want\n%q", left, want)
	}
}

func TestRepositoriesTravelToADepth(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("there is no git")
	}
	dir := t.TempDir()
	repository(t, dir, nil)
	for deep, n := dir, 0; n <= maxNested; n++ {
		deep = filepath.Join(deep, "r")
		repository(t, deep, map[string]string{"file": ""})
	}
	names, left, err := files(dir)
	if err != nil || len(names) != maxNested || len(left) != 1 || !strings.Contains(left[0], "too deep") {
		t.Errorf("%q, %q, %v", names, left, err)
	}
}
