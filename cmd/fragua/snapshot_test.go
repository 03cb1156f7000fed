package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAFolderThatIsTooLargeIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "big", "deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"small": 1 << 20, "big/deep/file": 3 << 20} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names, _, err := files(dir)
	if err != nil || len(names) != 2 {
		t.Fatalf("%q, %v", names, err)
	}
	_, _, err = snapshot(dir, names, 2<<20)
	if err == nil || !strings.Contains(err.Error(), "4 MiB, and 2 MiB is the most; 3 MiB lie in big") {
		t.Errorf("%v", err)
	}
	f, _, err := snapshot(dir, names, 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	os.Remove(f.Name())
}
