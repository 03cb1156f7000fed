package bus_test

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

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
