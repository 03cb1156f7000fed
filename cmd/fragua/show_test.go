package main

import "testing"

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
