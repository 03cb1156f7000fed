package bus_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/bus"
)

// TestBatchesKeepTheOrderAndLoseNobody has one event that cannot be handled among
// many that are heard together.
func TestBatchesKeepTheOrderAndLoseNobody(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	var (
		mu      sync.Mutex
		order   []ident.Event
		largest int
		set     []ident.Event
	)
	bad := requested(7).ID
	subs := bus.Together(25*time.Millisecond, func(_ context.Context, events []event.Event) error {
		if slices.ContainsFunc(events, func(e event.Event) bool { return e.ID == bad }) {
			if len(events) == 1 {
				panic("this one cannot be handled")
			}
			return errors.New("one of them cannot be handled")
		}
		mu.Lock()
		defer mu.Unlock()
		largest = max(largest, len(events))
		for _, e := range events {
			order = append(order, e.ID)
		}
		return nil
	}, event.JobRequested.Subject)
	start(t, bus.Config{Alert: func(e event.Event, _ string, _ error) {
		mu.Lock()
		defer mu.Unlock()
		set = append(set, e.ID)
	}}, db, subs...)
	var all []event.Event
	for i := range 20 {
		all = append(all, requested(i))
	}
	emit(t, db, all...)
	eventually(t, "the bad one is set aside", func() bool { mu.Lock(); defer mu.Unlock(); return len(set) == 1 && set[0] == bad })
	all = nil
	for i := range 100 {
		all = append(all, requested(100+i))
	}
	emit(t, db, all...)
	eventually(t, "all others are heard", func() bool { mu.Lock(); defer mu.Unlock(); return len(order) == 119 })
	eventually(t, "the outbox is empty", func() bool { return outbox(t, db) == 0 })
	mu.Lock()
	defer mu.Unlock()
	if largest < 50 {
		t.Errorf("the largest batch held %d", largest)
	}
	var want []ident.Event
	for i := range 20 {
		if i != 7 {
			want = append(want, requested(i).ID)
		}
	}
	for i := range 100 {
		want = append(want, requested(100+i).ID)
	}
	if !slices.Equal(order, want) {
		t.Errorf("not in order: %v", order)
	}
}
