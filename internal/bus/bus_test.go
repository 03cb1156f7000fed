package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nats-io/nats.go"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/sqldb"
)

var noSchema = fstest.MapFS{"00001_none.sql": {Data: []byte("-- +goose Up\nCREATE TABLE none (x INTEGER);\n")}}

func openDB(t *testing.T, file string) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), file, noSchema)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func openStream(t *testing.T, cfg bus.StreamConfig) *bus.Stream {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Process == "" {
		cfg.Process = "test"
	}
	s, err := bus.OpenStream(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func requested(n int) event.Event {
	id := ident.Job(fmt.Sprintf("job_%d", n))
	return event.JobRequested.Event(event.About{Tenant: "acme", Key: string(id), Twist: "1", At: time.Now()}, event.JobRequest{Job: id, Attempt: 1})
}

func emit(t *testing.T, db *sqldb.DB, events ...event.Event) {
	t.Helper()
	if err := db.Write(context.Background(), func(tx *sqldb.Tx) error { return tx.Emit(events...) }); err != nil {
		t.Fatal(err)
	}
}

// heard counts events by id.
type heard struct {
	mu  sync.Mutex
	ids map[ident.Event]int
}

func (h *heard) take(id ident.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ids == nil {
		h.ids = map[ident.Event]int{}
	}
	h.ids[id]++
}

func (h *heard) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ids)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func start(t *testing.T, cfg bus.Config, db *sqldb.DB, subs ...bus.Subscription) *bus.Bus {
	t.Helper()
	cfg.Log, cfg.Now = slog.New(slog.DiscardHandler), time.Now
	b := bus.New(cfg)
	b.Carry("orchestration", db)
	b.Listen("scheduling", db, subs...)
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	return b
}

func outbox(t *testing.T, db *sqldb.DB) int {
	rows, err := db.Outbox(t.Context(), 0, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	return len(rows)
}

func TestEveryEventIsHeardAndForgotten(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	var h heard
	sub := bus.On(event.JobRequested, func(_ context.Context, e event.Event, _ event.JobRequest) error {
		h.take(e.ID)
		return nil
	})
	for i := range 700 { // more than a page is there before the bus starts
		emit(t, db, requested(i))
	}
	start(t, bus.Config{}, db, sub)
	for i := range 300 {
		emit(t, db, requested(1000+i))
	}
	eventually(t, "all heard", func() bool { return h.len() == 1000 })
	eventually(t, "the outbox is empty", func() bool { return outbox(t, db) == 0 })
	for id, n := range h.ids {
		if n != 1 {
			t.Errorf("%s was heard %d times", id, n)
		}
	}
}

func TestWhatWasNotHandledIsHeardAfterARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.db")
	db := openDB(t, file)
	block := make(chan struct{})
	first := start(t, bus.Config{}, db, bus.On(event.JobRequested, func(ctx context.Context, _ event.Event, _ event.JobRequest) error {
		close(block)
		<-ctx.Done()
		return ctx.Err()
	}))
	emit(t, db, requested(1))
	<-block
	first.Stop()
	if n := outbox(t, db); n != 1 {
		t.Fatalf("%d events in the outbox, want the one that was not handled", n)
	}
	db.Close()
	db = openDB(t, file)
	var h heard
	start(t, bus.Config{}, db, bus.On(event.JobRequested, func(_ context.Context, e event.Event, _ event.JobRequest) error {
		h.take(e.ID)
		return nil
	}))
	eventually(t, "heard after the restart", func() bool { return h.len() == 1 })
}

func TestLaterAndFaults(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	var h, early heard
	faults := func(_ string, e event.Event) []time.Duration {
		switch len(e.ID) % 3 {
		case 0:
			return nil // lost
		case 1:
			return []time.Duration{0, 0, time.Millisecond} // copies
		}
		return []time.Duration{3 * time.Millisecond} // late
	}
	start(t, bus.Config{Faults: faults}, db, bus.On(event.JobRequested, func(_ context.Context, e event.Event, _ event.JobRequest) error {
		early.take(e.ID)
		early.mu.Lock()
		defer early.mu.Unlock()
		if early.ids[e.ID] < 3 {
			return bus.ErrLater
		}
		h.take(e.ID)
		return nil
	}))
	for _, n := range []int{1, 22, 333, 4444} {
		emit(t, db, requested(n))
	}
	eventually(t, "all handled", func() bool { return h.len() == 4 })
	eventually(t, "the outbox is empty", func() bool { return outbox(t, db) == 0 })
}

func TestAPoisonousEventIsSetAside(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	alerts := make(chan string, 1)
	var h heard
	start(t, bus.Config{Alert: func(e event.Event, room string, err error) { alerts <- room + ": " + err.Error() }}, db,
		bus.On(event.JobRequested, func(_ context.Context, e event.Event, d event.JobRequest) error {
			if d.Job == "job_1" {
				panic("poison")
			}
			h.take(e.ID)
			return nil
		}))
	emit(t, db, requested(1), requested(2))
	if got, want := <-alerts, "scheduling: panic: poison"; got != want {
		t.Errorf("alert %q, want %q", got, want)
	}
	eventually(t, "the other one is heard", func() bool { return h.len() == 1 })
	var n int
	if err := db.QueryRow(t.Context(), `SELECT COUNT(*) FROM dead_letter WHERE room = 'scheduling'`).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d dead letters, %v; want 1", n, err)
	}
}

func TestTailResumesWhereItEnded(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	s := openStream(t, bus.StreamConfig{Rooms: bus.Rooms})
	start(t, bus.Config{Stream: s}, db)
	for i := range 10 {
		emit(t, db, requested(i))
	}
	read := func(after string, most int) (ids []ident.Event, place string) {
		enough := errors.New("enough")
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err := s.Tail(ctx, []string{"ci.job.>"}, after, true, func(id string, e event.Event) error {
			ids, place = append(ids, e.ID), id
			if len(ids) == most {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) {
			t.Fatal(err)
		}
		return ids, place
	}
	first, place := read("0", 4)
	second, _ := read(place, 6)
	for i, id := range append(first, second...) {
		if want := requested(i).ID; id != want {
			t.Errorf("event %d is %s, want %s", i, id, want)
		}
	}
	if err := s.Tail(t.Context(), nil, "b1", true, nil); !errors.Is(err, bus.ErrPlace) {
		t.Errorf("a wrong place: %v", err)
	}
}

// TestLargeEventsArePublished has the largest job that passes validation be heard, however
// its text is escaped, and what is too large hold up nobody.
func TestLargeEventsArePublished(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	s := openStream(t, bus.StreamConfig{Rooms: bus.Rooms})
	start(t, bus.Config{Stream: s}, db)
	large := func(id string, env, steps int) event.Event {
		j := spec.Job{Env: map[string]string{}}
		for i := 0; env > 0; i, env = i+1, env-1000 {
			j.Env[fmt.Sprintf("V%03d", i)] = strings.Repeat("&", 1000)
		}
		for ; steps > 0; steps -= 100_000 {
			j.Steps = append(j.Steps, spec.Step{Run: strings.Repeat("\x01", min(steps, 100_000))})
		}
		if faults := j.Validate(); len(faults) > 0 && !strings.Contains(id, "too") {
			t.Fatalf("%s: %v", id, faults)
		}
		return event.JobRequested.Event(event.About{Tenant: "acme", Key: id, Twist: "1", At: time.Now()}, event.JobRequest{Job: ident.Job(id), Spec: j, Attempt: 1})
	}
	events := []event.Event{
		large("the largest", 200_000, spec.MaxJobBytes-230_000),
		large("and too much env of its run", 2*spec.MaxEnvBytes, spec.MaxJobBytes),
		large("too large", 0, 4<<20),
		requested(1),
	}
	for _, e := range events {
		emit(t, db, e)
	}
	var got []ident.Event
	enough := errors.New("enough")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := s.Tail(ctx, []string{"ci.job.>"}, "0", true, func(_ string, e event.Event) error {
		if got = append(got, e.ID); len(got) == 3 {
			return enough
		}
		return nil
	})
	if want := []ident.Event{events[0].ID, events[1].ID, events[3].ID}; !errors.Is(err, enough) || !slices.Equal(got, want) {
		t.Errorf("heard %s, %v", got, err)
	}
	eventually(t, "the outbox is empty", func() bool { return outbox(t, db) == 0 })
}

func TestAReaderFromOutsideMayNotSpeak(t *testing.T) {
	s := openStream(t, bus.StreamConfig{Rooms: bus.Rooms, Listen: "127.0.0.1:0", User: "fragua", Password: "secret"})
	refused := make(chan error, 1)
	nc, err := nats.Connect("nats://"+s.Address(), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("ci.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish("ci.job.requested", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	nc.Flush()
	select {
	case err := <-refused:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("refused with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a stranger could publish")
	}
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	start(t, bus.Config{Stream: s}, db)
	emit(t, db, requested(1))
	m, err := sub.NextMsg(10 * time.Second)
	if err != nil || m.Header.Get(nats.MsgIdHdr) != string(requested(1).ID) {
		t.Errorf("heard %v, %v", m, err)
	}
}

func TestRoomsOfTwoProcessesHearEachOther(t *testing.T) {
	host := openStream(t, bus.StreamConfig{Rooms: []string{"orchestration"}, Listen: "127.0.0.1:0", User: "fragua", Password: "secret", Process: "one"})
	other := openStream(t, bus.StreamConfig{Rooms: []string{"scheduling"}, URL: "nats://" + host.Address(), User: "fragua", Password: "secret", Process: "two"})
	log := slog.New(slog.DiscardHandler)
	one := bus.New(bus.Config{Stream: host, Log: log, Now: time.Now})
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	one.Carry("orchestration", db)
	two := bus.New(bus.Config{Stream: other, Log: log, Now: time.Now})
	var h, tries heard
	two.Listen("scheduling", openDB(t, filepath.Join(t.TempDir(), "b.db")), bus.On(event.JobRequested, func(_ context.Context, e event.Event, _ event.JobRequest) error {
		tries.take(e.ID)
		tries.mu.Lock()
		defer tries.mu.Unlock()
		if tries.ids[e.ID] == 1 {
			return bus.ErrLater
		}
		h.take(e.ID)
		return nil
	}))
	for _, b := range []*bus.Bus{one, two} {
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer b.Stop()
	}
	for i := range 20 {
		emit(t, db, requested(i))
	}
	eventually(t, "all heard in the other process", func() bool { return h.len() == 20 })
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, subject string
		want             bool
	}{
		{"ci.job.>", "ci.job.requested", true}, {"ci.>", "ci.security.auth.denied", true}, {"ci.*.created", "ci.offer.created", true},
		{"ci.job.>", "ci.job", false}, {"ci.*", "ci.job.requested", false}, {"ci.job.requested", "ci.job.requested", true}, {"ci.>.x", "ci.a.x", false},
	} {
		if got := bus.Matches(c.pattern, c.subject); got != c.want {
			t.Errorf("%s, %s: %v", c.pattern, c.subject, got)
		}
	}
}

// TestAProgramThatIsKilledAgainAndAgainGetsFurther hands out what was handled before
// not again, though the stream has not settled.
func TestAProgramThatIsKilledAgainAndAgainGetsFurther(t *testing.T) {
	file, dir := filepath.Join(t.TempDir(), "a.db"), t.TempDir()
	again := 0
	for round := range 3 {
		db := openDB(t, file)
		s := openStream(t, bus.StreamConfig{Rooms: bus.Rooms, Dir: dir})
		var h heard
		b := start(t, bus.Config{Stream: s}, db, bus.On(event.JobRequested, func(_ context.Context, e event.Event, _ event.JobRequest) error {
			h.take(e.ID)
			return nil
		}))
		for i := range 50 {
			emit(t, db, requested(i+1000*len(t.Name())))
		}
		eventually(t, "all heard", func() bool { return h.len() == 50 })
		eventually(t, "the mark is saved", func() bool {
			marks, err := db.Marks(t.Context(), "local")
			return err == nil && len(marks) == 1 && b.Pending() == 0 && marks[0].Seq == int64(50*(round+1))
		})
		for _, n := range h.ids {
			again += n - 1
		}
		b.Stop()
		s.Close()
		db.Close()
	}
	if again > 0 {
		t.Errorf("%d events were handed out again", again)
	}
}
