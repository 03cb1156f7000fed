package sqldb

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"

	"fragua.dev/fragua/contract/event"
)

var schema = fstest.MapFS{"001_t.sql": {Data: []byte("-- +goose Up\nCREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT NOT NULL);\n")}}

func open(t testing.TB, file string) *DB {
	t.Helper()
	db, err := Open(context.Background(), file, schema)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func count(t *testing.T, db *DB, table string) (n int) {
	t.Helper()
	if err := db.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWriteTogether(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "a.db"))
	boom := errors.New("boom")
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			err := db.Write(t.Context(), func(tx *Tx) error {
				if i%7 == 0 {
					return boom // before anything is written
				}
				if _, err := tx.Exec("INSERT INTO t (id, v) VALUES ($1, $2)", i, "x"); err != nil {
					return err
				}
				if i%11 == 0 {
					return boom // after: the others must not suffer
				}
				if i%13 == 0 {
					panic("at the disco")
				}
				return nil
			})
			if bad := i%7 == 0 || i%11 == 0 || i%13 == 0; bad != (err != nil) {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	wg.Wait()
	want := 0
	for i := range 300 {
		if i%7 != 0 && i%11 != 0 && i%13 != 0 {
			want++
		}
	}
	if n := count(t, db, "t"); n != want {
		t.Errorf("%d rows, want %d", n, want)
	}
}

func TestOutbox(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.db")
	db := open(t, file)
	var seen []Row
	db.OnCommit(func(r []Row) { seen = append(seen, r...) })
	say := func(key string, fail error) error {
		return db.Write(t.Context(), func(tx *Tx) error {
			if err := tx.Emit(event.RunStarted.Event(event.About{Tenant: "t", Key: key}, event.RunMoved{})); err != nil {
				return err
			}
			return fail
		})
	}
	boom := errors.New("boom")
	if err := errors.Join(say("a", nil), say("b", nil)); err != nil {
		t.Fatal(err)
	}
	if err := say("c", boom); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if len(seen) != 2 || seen[0].Event.Key != "a" || seen[1].Event.Key != "b" {
		t.Fatalf("handed over: %+v", seen)
	}
	db.Close()
	db = open(t, file)
	rows, err := db.Outbox(t.Context(), 0, 10)
	if err != nil || len(rows) != 2 || rows[1].Event.ID != seen[1].Event.ID {
		t.Fatalf("after reopening: %+v, %v", rows, err)
	}
	if err := db.Write(t.Context(), func(tx *Tx) error { return tx.Forget(rows[0].Seq) }); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db, "outbox"); n != 1 {
		t.Errorf("%d left, want 1", n)
	}
}

func TestClosed(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "a.db"))
	db.Close()
	if err := db.Write(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, clients := range []int{1, 8, 64} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			db := open(b, filepath.Join(b.TempDir(), "a.db"))
			b.SetParallelism(clients)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					err := db.Write(b.Context(), func(tx *Tx) error {
						_, err := tx.Exec("INSERT INTO t (v) VALUES ($1)", "0123456789012345678901234567890123456789")
						return err
					})
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// TestRoomOfAFullDisk bounds the database's size in the place of the disk's.
func TestRoomOfAFullDisk(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "a.db"))
	limit := func(pages int) {
		t.Helper()
		err := db.Write(t.Context(), func(tx *Tx) error {
			_, err := tx.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	fill := func() error {
		return db.Write(t.Context(), func(tx *Tx) error {
			_, err := tx.Exec("INSERT INTO t (v) VALUES ($1)", string(make([]byte, 1<<20)))
			return err
		})
	}
	if err := db.Room(t.Context()); err != nil {
		t.Fatal(err)
	}
	limit(1) // as many as there are
	if err := fill(); !errors.Is(err, ErrFull) {
		t.Fatalf("a full disk is told as %v", err)
	}
	if !db.full.Load() {
		t.Error("a full disk is not noticed")
	}
	limit(1 << 20)
	if err := db.Room(t.Context()); err != nil {
		t.Errorf("there is room again: %v", err)
	}
	if err := fill(); err != nil {
		t.Error(err)
	}
}

// TestReadersKeepLittle holds readers to a small cache: modernc's driver applies a
// pragma once, the first of a name.
func TestReadersKeepLittle(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "a.db"))
	var reader, writer int
	if err := db.QueryRow(t.Context(), "PRAGMA cache_size").Scan(&reader); err != nil {
		t.Fatal(err)
	}
	err := db.Write(t.Context(), func(tx *Tx) error { return tx.QueryRow("PRAGMA cache_size").Scan(&writer) })
	if err != nil {
		t.Fatal(err)
	}
	if reader != -500 || writer != -4000 {
		t.Errorf("a reader keeps %d, the writer %d; want -500 and -4000 kB", reader, writer)
	}
}
