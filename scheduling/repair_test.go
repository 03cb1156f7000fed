package scheduling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/sqldb"
)

func TestResay(t *testing.T) {
	h := newHouse(t, node("n", 1000))
	h.hear(h.requested("lost", 1, quota(100, 1)), h.requested("fine", 1, quota(100, 1)), h.requested("off", 1, quota(100, 1)))
	all := said(h, event.AssignmentCreated)
	h.hear(h.workerMade(all[1]), h.cancelled("off", 1))
	round := func() {
		t.Helper()
		if err := h.reconcile(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
	round()
	if n := len(said(h, event.AssignmentCreated)); n != 3 {
		t.Fatalf("said again at once: %d", n)
	}
	h.pass(61 * time.Second)
	round()
	h.restart() // what is known of "fine" was written down
	h.pass(61 * time.Second)
	round() // too early for the second time
	h.pass(2 * time.Minute)
	round()
	var ids []string
	for _, e := range h.outbox() {
		if e.Subject == event.AssignmentCreated.Subject || e.Subject == event.AssignmentRevoked.Subject {
			ids = append(ids, strings.TrimPrefix(string(e.ID), "Assignment"))
		}
	}
	want := []string{"Created:acme:lost:1", "Created:acme:fine:1", "Created:acme:off:1", "Revoked:acme:off:1",
		"Created:acme:lost:1.r1", "Revoked:acme:off:1.r1", "Created:acme:lost:1.r2", "Revoked:acme:off:1.r2"}
	if !slices.Equal(ids, want) {
		t.Errorf("said\n%q, want\n%q", ids, want)
	}
}

func TestPrune(t *testing.T) {
	h := newHouse(t, node("n", 1000))
	h.hear(h.requested("old", 1, quota(100, 1)))
	h.hear(h.workerEnded(said(h, event.AssignmentCreated)[0]))
	h.pass(31 * 24 * time.Hour)
	h.hear(h.requested("new", 1, quota(100, 1)))
	h.hear(h.workerEnded(said(h, event.AssignmentCreated)[1]))
	if err := h.reconcile(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := h.find(t.Context(), jobKey{"acme", "old"}); !errors.Is(err, errNoPlace) {
		t.Errorf("old: %v", err)
	}
	h.tell("new")
}

func TestCapacityIsSaidSeldomAndLast(t *testing.T) {
	h := newHouse(t, node("n", 100_000))
	before := len(said(h, event.CapacityUpdated)) // one, at the start
	for i := range 50 {
		h.hear(h.requested(fmt.Sprint("j", i), 1, quota(1000, 1)))
	}
	if n := len(said(h, event.CapacityUpdated)) - before; n != 0 {
		t.Errorf("said %d times in no time", n)
	}
	h.pass(capacityRate)
	h.plan()
	all := said(h, event.CapacityUpdated)
	if last := all[len(all)-1]; len(all) != before+1 || last.Quota != quota(50_000, 99_950) || last.Total != quota(100_000, 100_000) {
		t.Errorf("%+v", all)
	}
}

// TestCapacityIsSaidUnasked has the desk say the last value though nothing more
// happens.
func TestCapacityIsSaidUnasked(t *testing.T) {
	h := newHouse(t, node("n", 1000))
	h.hear(h.requested("j", 1, quota(400, 1)))
	h.pass(capacityRate)
	for end := time.Now().Add(10 * time.Second); ; {
		all := said(h, event.CapacityUpdated)
		if all[len(all)-1].Quota == quota(600, 999) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not said: %+v", all)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestSpoilt has one request fail after it wrote, and others write beside the
// desk and fail, which makes its turns run again: nobody must suffer, and the
// mirror must be as the database is.
func TestSpoilt(t *testing.T) {
	h := newHouse(t, node("n", 10_000))
	boom := errors.New("boom")
	var wg, beside sync.WaitGroup
	done := make(chan struct{})
	for range 8 {
		beside.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				h.DB().Write(context.Background(), func(tx *sqldb.Tx) error {
					tx.Exec(`DELETE FROM nodes`)
					return boom
				})
			}
		})
	}
	for i := range 20 {
		wg.Go(func() {
			for k := range 10 {
				h.hear(h.requested(fmt.Sprintf("j%d-%d", i, k), 1, quota(10, 1)))
			}
		})
		wg.Go(func() {
			err := h.ask(context.Background(), func(t *turn) error {
				t.room.snap.Give("n", quota(1_000_000, 1)) // nonsense that must not survive
				if _, err := t.tx.Exec(`DELETE FROM assignments`); err != nil {
					return err
				}
				return boom
			})
			if !errors.Is(err, boom) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	close(done)
	beside.Wait()
	h.plan()
	if n := len(said(h, event.AssignmentCreated)); n != 200 || h.free("n") != quota(8000, 9800) {
		t.Errorf("%d assignments, free %+v", n, h.free("n"))
	}
	h.restart()
	if got := h.free("n"); got != quota(8000, 9800) {
		t.Errorf("after a restart: free %+v", got)
	}
}
