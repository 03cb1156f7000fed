package bus_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/bus"
)

// TestATailOfWhatIsStoredIsWhole reads while more is stored: what comes into one
// stream meanwhile must not end the reading of another.
func TestATailOfWhatIsStoredIsWhole(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	s := openStream(t, bus.StreamConfig{Rooms: bus.Rooms})
	start(t, bus.Config{Stream: s}, db)
	const jobs = 100
	for i := range jobs {
		id := ident.Job(fmt.Sprintf("job_%d", i))
		about := event.About{Tenant: "acme", Key: string(id), Twist: "1", At: time.Now()}
		emit(t, db, requested(i), event.JobRetrying.Event(about, event.JobRetry{Job: id, Attempt: 1}), event.StepStarted.Event(about, event.StepBegin{Job: id}),
			event.StepCompleted.Event(about, event.StepEnd{Job: id}), event.JobCompleted.Event(about, event.JobDone{Job: id, Attempt: 1}))
	}
	more := 0
	emit(t, db, event.AuthGranted.Event(event.About{Tenant: "acme", Key: "0"}, event.Grant{}))
	read := func() (n int) {
		told := more
		err := s.Tail(t.Context(), nil, "0", false, func(_ string, e event.Event) error {
			if n++; e.Subject != event.AuthGranted.Subject {
				return nil
			}
			if n--; more == told { // each reading is followed by another event
				more++
				emit(t, db, event.AuthGranted.Event(event.About{Tenant: "acme", Key: fmt.Sprint(more)}, event.Grant{}))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	eventually(t, "all is stored", func() bool { return read() == 5*jobs })
	for i := range 40 {
		if n := read(); n != 5*jobs {
			t.Fatalf("reading %d gave %d events of jobs, want %d", i, n, 5*jobs)
		}
	}
}

// TestATailOfStreamsThatWereLostBeginsAnew resumes at a place of before, when there is
// less in those that took their place, and more.
func TestATailOfStreamsThatWereLostBeginsAnew(t *testing.T) {
	dir := t.TempDir()
	db := openDB(t, filepath.Join(dir, "a.db"))
	read := func(s *bus.Stream, after string) (ids []ident.Event, place string) {
		if err := s.Tail(t.Context(), []string{"ci.job.>"}, after, false, func(id string, e event.Event) error {
			ids, place = append(ids, e.ID), id
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return ids, place
	}
	// store opens the streams of a folder, adds events, and returns what is read after a place.
	store := func(name string, from, to int, after string) (ids []ident.Event, place string) {
		s := openStream(t, bus.StreamConfig{Rooms: bus.Rooms, Dir: filepath.Join(dir, name)})
		b := start(t, bus.Config{Stream: s}, db)
		for i := from; i < to; i++ {
			emit(t, db, requested(i))
		}
		eventually(t, "all is published", func() bool { return b.Unpublished() == 0 })
		ids, place = read(s, after)
		b.Stop()
		s.Close()
		return ids, place
	}
	_, old := store("one", 0, 10, "0")
	if ids, _ := store("one", 10, 12, old); len(ids) != 2 || ids[0] != requested(10).ID {
		t.Errorf("after a restart %q", ids)
	}
	_, old = store("one", 12, 12, "0")
	bare, _, _ := strings.Cut(old, "-s")
	for i, c := range []struct {
		after string
		n     int
	}{{old, 3}, {old, 15}, {bare, 3}, {"b99-a99-t99", 3}} {
		from := 100 * (i + 1)
		if ids, place := store(fmt.Sprint("next", i), from, from+c.n, c.after); len(ids) < c.n || !slices.Contains(ids, requested(from).ID) || place == "" {
			t.Errorf("after %s, of %d events: %q", c.after, c.n, ids)
		}
	}
}

// TestATailTellsWhatNoStreamKeeps follows measurements, which come while they are made.
func TestATailTellsWhatNoStreamKeeps(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	s := openStream(t, bus.StreamConfig{Rooms: bus.Rooms})
	b := start(t, bus.Config{Stream: s}, db)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	heard := make(chan event.Event, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- s.Tail(ctx, []string{event.MetricEmitted.Subject}, "", true, func(_ string, e event.Event) error {
			select {
			case heard <- e:
			default:
			}
			return nil
		})
	}()
	n := 0
	eventually(t, "a measurement is heard", func() bool {
		n++
		emit(t, db, event.MetricEmitted.Event(event.About{Tenant: "acme", Key: fmt.Sprint(n), At: time.Now()}, event.Metric{Name: "jobs"}))
		select {
		case e := <-heard:
			if d, err := event.MetricEmitted.Read(e); err != nil || d.Name != "jobs" || e.Tenant != "acme" {
				t.Errorf("%+v, %v", d, err)
			}
			return true
		default:
			return false
		}
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the tail ended with %v", err)
	}
	b.Stop()
}
