package bus_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
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
