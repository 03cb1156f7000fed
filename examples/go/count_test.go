package main

import (
	"maps"
	"strings"
	"testing"
)

func TestCount(t *testing.T) {
	got, err := count(strings.NewReader("To be or not\nto be"))
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]int{"to": 2, "be": 2, "or": 1, "not": 1}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
