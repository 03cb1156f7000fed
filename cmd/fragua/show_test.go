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
