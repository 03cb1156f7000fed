package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDoctorsWordsAgreeWithTheirMark(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:7070") // or it is taken already
	if err == nil {
		defer l.Close()
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	marks := map[string]string{}
	for _, f := range examine(filepath.Join(file, "data")) {
		marks[f.State] += f.What + "\n"
	}
	if bad := marks["TAKEN"] + marks["MISSING"]; !strings.Contains(bad, "port 7070") || !strings.Contains(bad, "cannot be written") || strings.Contains(bad, "free") {
		t.Errorf("%q", marks)
	}
}

func TestCgroup2IsFoundBesideTheFirst(t *testing.T) {
	root := t.TempDir()
	if cgroup2(root) {
		t.Error("found in an empty folder")
	}
	beside := filepath.Join(root, "unified")
	for _, dir := range []string{beside, root} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.controllers"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if !cgroup2(root) {
			t.Errorf("not found in %s", dir)
		}
		os.Remove(filepath.Join(dir, "cgroup.controllers"))
	}
}
