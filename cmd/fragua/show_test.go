package main

import (
	"fmt"
	"slices"
	"testing"
)

func TestWhereThereIsNothingATableHasADash(t *testing.T) {
	v := map[string]any{"list": []any{}, "map": map[string]any{}, "null": nil, "some": []any{"a", "b"}, "odd": []any{map[string]any{"a": 1}}}
	for path, want := range map[string]string{"list": "-", "map": "-", "null": "-", "none": "-", "some": "a, b", "odd": `[{"a":1}]`, "list|some": "a, b"} {
		if got := cell(v, path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestWhatWouldNotBeSeenIsShown(t *testing.T) {
	v := map[string]any{"name": "a\u202eb\u200b\u2066\u2028\ufeff", "list": []any{"é\u200d"}, "map": map[string]any{"k": "\u2069\u009b"}, "tag": "\U000e0041\x1b"}
	for path, want := range map[string]string{
		"name": "a<U+202E>b<U+200B><U+2066><U+2028><U+FEFF>", "list": "é<U+200D>", "map": `{"k":"<U+2069>` + "\uFFFD" + `"}`, "tag": "<U+E0041>\uFFFD",
	} {
		if got := cell(v, path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestOfManyFailedJobsTheFirstAreTold(t *testing.T) {
	var jobs []any
	add := func(n int, state, message string) {
		for range n {
			jobs = append(jobs, map[string]any{"name": fmt.Sprint("j", len(jobs)), "state": state, "failure": map[string]any{"code": "c", "message": message}})
		}
	}
	add(1, "CANCELLED", "it needs j1, which did not succeed")
	add(1, "FAILED", "no\x1b[2J good")
	add(1, "CANCELLED", "")
	jobs = append(jobs, map[string]any{"name": "fine", "state": "SUCCEEDED"})
	v := map[string]any{"jobs": jobs, "undone": []any{map[string]any{"name": "u", "state": "TERMINATED", "failure": map[string]any{"code": "lost", "message": "gone"}}}}
	parts := []part{{name: "jobs"}, {name: "undone", what: "undo "}, {name: "none"}}
	want := []string{"j1: c: no\uFFFD[2J good", "undo u: lost: gone", "j0: c: it needs j1, which did not succeed"}
	if got := whys(v, parts); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	add(40, "FAILED", "x")
	v["jobs"] = jobs
	if got := whys(v, parts); len(got) != maxWhys+1 || got[maxWhys] != "and 23 more" {
		t.Errorf("of 43: %q", got)
	}
}
