package main

import "testing"

func TestHeapGrowsLessTheMoreLives(t *testing.T) {
	for live, want := range map[uint64]int{0: 300, 50 << 20: 300, 100 << 20: 150, 150 << 20: 100, 4 << 30: 100} {
		if got := gcPercent(live); got != want {
			t.Errorf("of %d MiB: %d, want %d", live>>20, got, want)
		}
	}
}
