package bus_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/sqldb"
)

// TestOnlyWhatTheStreamLacksIsPublishedAfterAnEnd lets a process end before any of
// what it published is forgotten, and listens to what the next one publishes.
func TestOnlyWhatTheStreamLacksIsPublishedAfterAnEnd(t *testing.T) {
	const events = 1200 // more than a page of the outbox
	for name, now := range map[string]struct{ lost, booted bool }{
		"the stream is whole":         {},
		"the machine was begun again": {booted: true},
		"the stream was deleted":      {lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			file, dir := filepath.Join(t.TempDir(), "a.db"), t.TempDir()
			db := openDB(t, file)
			cfg := bus.StreamConfig{Rooms: bus.Rooms, Dir: dir, Listen: "127.0.0.1:0", User: "fragua", Password: "secret"}
			s := openStream(t, cfg)
			said := listen(t, s)
			b := start(t, bus.Config{Stream: s}, db)
			var all []event.Event
			for i := range events {
				all = append(all, requested(i))
			}
			emit(t, db, all...)
			eventually(t, "all are published", func() bool { return said.Load() == events })
			eventually(t, "all are acknowledged", func() bool { return b.Unpublished() == 0 })
			b.Stop()
			s.Close()
			if left := outbox(t, db); left != events {
				t.Fatalf("%d events are left in the outbox: the test is too slow to say anything", left)
			}
			want := int64(1)
			if now.booted { // what is noted is of another start of the machine
				exec(t, db, `DELETE FROM relay_mark WHERE way <> 'local'`)
			}
			if now.lost {
				want += events
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			}
			s = openStream(t, cfg)
			said = listen(t, s)
			b = start(t, bus.Config{Stream: s}, db)
			emit(t, db, requested(events))
			eventually(t, "all are published", func() bool { return said.Load() >= want && b.Unpublished() == 0 })
			if n := said.Load(); n != want {
				t.Errorf("%d events were published, want %d", n, want)
			}
			// What was found need not be kept until the kernel has surely written it: else
			// the outbox of a program that is killed again and again only grows.
			eventually(t, "the outbox is empty", func() bool { return outbox(t, db) == 0 })
			b.Stop()
		})
	}
}

// TestAStartAsksTheBusForNothingThatItKnows begins a process on a bus that is as it
// should be, with a database whose events are all its own: each question would have the
// bus read whole blocks of its streams.
func TestAStartAsksTheBusForNothingThatItKnows(t *testing.T) {
	cfg := bus.StreamConfig{Rooms: bus.Rooms, Listen: "127.0.0.1:0", User: "fragua", Password: "secret"}
	there := openStream(t, cfg)
	asked := questions(t, there)
	s := openStream(t, bus.StreamConfig{Rooms: bus.Rooms, URL: "nats://" + there.Address(), User: "fragua", Password: "secret"})
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	b := bus.New(bus.Config{Stream: s, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	b.Carry("orchestration", db)
	emit(t, db, requested(1)) // a room that opens may speak before the bus begins
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer b.Stop()
	eventually(t, "the event is published", func() bool { return b.Unpublished() == 0 })
	if q := asked(); len(q) > 0 {
		t.Errorf("the bus was asked: %s", q)
	}
}

// TestLastWordsArePublishedByTheNextProcess has a room speak when it closes, after the bus
// has stopped: the next process publishes that, and need not ask whether it was.
func TestLastWordsArePublishedByTheNextProcess(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	cfg := bus.StreamConfig{Rooms: bus.Rooms, Dir: t.TempDir(), Listen: "127.0.0.1:0", User: "fragua", Password: "secret"}
	s := openStream(t, cfg)
	b := start(t, bus.Config{Stream: s}, db)
	emit(t, db, requested(1))
	eventually(t, "the first is acknowledged", func() bool { return b.Unpublished() == 0 })
	b.Stop()
	emit(t, db, requested(2), requested(3))
	s.Close()
	s = openStream(t, cfg)
	said, asked := listen(t, s), questions(t, s)
	b = start(t, bus.Config{Stream: s}, db)
	eventually(t, "the last words are published", func() bool { return said.Load() >= 2 && b.Unpublished() == 0 })
	if q := asked(); len(q) > 0 || said.Load() != 2 {
		t.Errorf("%d events were published, and the bus was asked: %s", said.Load(), q)
	}
}

// questions listens to what the bus is asked from now on that makes it read its streams.
func questions(t *testing.T, s *bus.Stream) (asked func() []string) {
	t.Helper()
	conn, err := nats.Connect("nats://"+s.Address(), nats.UserInfo("fragua", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	heard := make(chan *nats.Msg, 100)
	for _, subject := range []string{"$JS.API.STREAM.UPDATE.>", "$JS.API.STREAM.CREATE.>", "$JS.API.CONSUMER.>"} {
		if _, err := conn.ChanSubscribe(subject, heard); err != nil {
			t.Fatal(err)
		}
	}
	flush := func() {
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	flush()
	return func() (all []string) {
		for flush(); len(heard) > 0; {
			all = append(all, (<-heard).Subject)
		}
		return all
	}
}

// listen counts what is published from now on.
func listen(t *testing.T, s *bus.Stream) *atomic.Int64 {
	t.Helper()
	conn, err := nats.Connect("nats://" + s.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	var n atomic.Int64
	if _, err := conn.Subscribe("ci.>", func(*nats.Msg) { n.Add(1) }); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	return &n
}

func exec(t *testing.T, db *sqldb.DB, query string) {
	t.Helper()
	if err := db.Write(t.Context(), func(tx *sqldb.Tx) error { _, err := tx.Exec(query); return err }); err != nil {
		t.Fatal(err)
	}
}
