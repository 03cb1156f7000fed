package bus_test

import (
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
