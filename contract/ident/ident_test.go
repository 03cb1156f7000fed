package ident

import (
	"strings"
	"testing"
	"time"
)

func TestValid(t *testing.T) {
	for s, want := range map[string]bool{
		"a": true, "job_01": true, "A.b-c": true, strings.Repeat("x", MaxLen): true,
		"": false, "-a": false, ".": false, "a..b": false, "a/b": false, "a b": false, "ä": false,
		"a\x00": false, strings.Repeat("x", MaxLen+1): false,
	} {
		if Valid(s) != want {
			t.Errorf("Valid(%q) = %v", s, !want)
		}
	}
}

func TestSourceSortsByTime(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	source := NewSource(func() time.Time { now = now.Add(time.Millisecond); return now })
	seen, last := map[string]bool{}, ""
	for range 1000 {
		id := source("job")
		if seen[id] || id <= last || !Valid(id) {
			t.Fatalf("%q after %q: want a new, greater, valid name", id, last)
		}
		seen[id], last = true, id
	}
}
