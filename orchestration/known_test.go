package orchestration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/sqldb"
)

// compare fails unless every job that is remembered is as its row is; it returns
// how many there are.
func (h *house) compare(fail func(string, ...any)) (n int) {
	err := h.room.db.Write(context.Background(), func(tx *sqldb.Tx) error {
		n = len(h.room.known.jobs)
		for key, j := range h.room.known.jobs {
			stored, err := loadJob(tx, key.tenant, key.id)
			if err != nil {
				return fmt.Errorf("%s is remembered: %w", key.id, err)
			}
			if a, b := bytesOf(h.t, j), bytesOf(h.t, stored); !bytes.Equal(a, b) {
				return fmt.Errorf("remembered as\n%s\nstored as\n%s", a, b)
			}
		}
		return nil
	})
	if err != nil {
		fail("%v", err)
	}
	return n
}

var errSpoilt = errors.New("spoilt")

// spoil changes a job and lets the transaction come to nothing.
func (h *house) spoil(id ident.Job) error {
	return h.room.db.Write(context.Background(), func(tx *sqldb.Tx) error {
		j, err := h.room.known.load(tx, "acme", id)
		if err != nil {
			return err
		}
		j.Node, j.State, j.Round = "nowhere", Cancelled, 99
		j.Steps[0].State = stepFailed
		if err := h.room.known.save(tx, j, h.clock()); err != nil {
			return err
		}
		return errSpoilt
	})
}

func TestWhatIsRememberedIsWhatIsStored(t *testing.T) {
	h := newHouse(t)
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		ids := make([]ident.Job, 4)
		for i := range ids {
			ids[i] = ident.Job(fmt.Sprintf("j%d.%d", round, i))
			body := fmt.Sprintf(`{"job_id":%q,"tags":{"a":"<b>"},"spec":{"steps":[{"run":"x"},{"run":"y"}],"retries":1,"retry_backoff_ms":1,"env":{"A":"é\u2028"}}}`, ids[i])
			if code := h.call("POST", "/jobs", body, nil); code != 201 {
				t.Fatalf("POST /jobs: %d", code)
			}
		}
		for range rapid.IntRange(1, 10).Draw(t, "batches") {
			h.later(time.Duration(rapid.IntRange(0, 100).Draw(t, "seconds")) * time.Second)
			// Several at once share a transaction, and one that is spoilt spoils it.
			var all sync.WaitGroup
			for range rapid.IntRange(1, 6).Draw(t, "at once") {
				id := rapid.SampledFrom(ids).Draw(t, "job")
				if rapid.IntRange(0, 3).Draw(t, "spoilt") == 0 {
					all.Go(func() {
						if err := h.spoil(id); !errors.Is(err, errSpoilt) {
							t.Errorf("a spoilt write: %v", err)
						}
					})
					continue
				}
				s := drawSignal(t, h.job(id))
				all.Go(func() { h.signal(id, s) }) // whether it fits is not the question here
			}
			all.Wait()
			h.compare(t.Fatalf)
		}
		for _, id := range ids {
			if j := h.job(id); j.Round == 99 {
				t.Fatalf("%s shows what was rolled back", id)
			}
		}
	})
}

func TestARollbackForgets(t *testing.T) {
	h := newHouse(t)
	h.want(201, "POST", "/jobs", `{"job_id":"j","spec":{"command":["x"]}}`, nil)
	before := bytesOf(t, h.job("j"))
	if err := h.spoil("j"); !errors.Is(err, errSpoilt) {
		t.Fatal(err)
	}
	if n := h.compare(t.Fatalf); n != 0 {
		t.Errorf("%d jobs are remembered", n)
	}
	if after := bytesOf(t, h.job("j")); !bytes.Equal(before, after) {
		t.Errorf("stored as\n%s\nwant\n%s", after, before)
	}
	h.run("j")
	if n := h.compare(t.Fatalf); n != 1 {
		t.Errorf("%d jobs are remembered once it moves again", n)
	}
}

func TestEndedJobsAreForgottenInTheEnd(t *testing.T) {
	h := newHouse(t)
	err := h.room.db.Write(context.Background(), func(tx *sqldb.Tx) error {
		for i := range len(h.room.known.ended) + 10 {
			j := &job{Job: Job{ID: ident.Job(fmt.Sprintf("j%d", i)), Tenant: "acme", State: Pending, Attempts: 1, Created: h.clock()}}
			if err := h.room.known.insert(tx, j, fingerprint(j.ID), h.clock()); err != nil {
				return err
			}
			if _, err := j.cancel(h.clock(), "no"); err != nil {
				return err
			}
			if err := h.room.known.save(tx, j, h.clock()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := h.compare(t.Fatalf); n != len(h.room.known.ended) {
		t.Errorf("%d ended jobs are remembered", n)
	}
}

func TestWhoeverLoadsMayChangeWhatHeGot(t *testing.T) {
	h := newHouse(t)
	h.want(201, "POST", "/jobs", `{"job_id":"j","spec":{"command":["x"]}}`, nil)
	for range 3 { // a handler that fails half way leaves nothing behind
		err := h.room.change(context.Background(), "acme", "j", func(j *job, now time.Time) ([]event.Event, error) {
			j.Steps[0].State, j.State, j.Attempts = stepFailed, Running, rand.IntN(100)
			return nil, errSpoilt
		})
		if !errors.Is(err, errSpoilt) {
			t.Fatal(err)
		}
	}
	h.compare(t.Fatalf)
}
