package bus_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/bus"
)

// TestAFullDiskIsSurvivedWithoutARestart fills the disk of the bus's files for a while,
// and follows what is said meanwhile.
func TestAFullDiskIsSurvivedWithoutARestart(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("fragua-bus", dir, "tmpfs", 0, "size=40m"); err != nil {
		t.Skipf("a small disk of its own cannot be made, which takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	db := openDB(t, filepath.Join(t.TempDir(), "a.db"))
	s := openStream(t, bus.StreamConfig{Rooms: bus.Rooms, Dir: filepath.Join(dir, "bus")})
	b := start(t, bus.Config{Stream: s}, db)
	heard := make(chan event.Event, 1024)
	ended := make(chan error, 1)
	go func() {
		ended <- s.Tail(t.Context(), nil, "0", true, func(_ string, e event.Event) error { heard <- e; return nil })
	}()
	emit(t, db, requested(0))
	eventually(t, "the first is published", func() bool { return b.Unpublished() == 0 })

	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	for chunk := make([]byte, 1<<20); len(chunk) > 0; chunk = chunk[:len(chunk)/2] {
		for err = nil; err == nil; {
			_, err = ballast.Write(chunk)
		}
	}
	if err := ballast.Close(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	const events = 200
	for i := 1; i < events; i++ {
		emit(t, db, requested(i))
	}
	if err := os.Remove(ballast.Name()); err != nil {
		t.Fatal(err)
	}
	late := time.After(time.Minute)
	all := map[string]bool{}
	for len(all) < events {
		select {
		case e := <-heard:
			all[string(e.ID)] = true
		case err := <-ended:
			t.Fatalf("the tail ended: %v", err)
		case <-late:
			t.Fatalf("%d of %d events were heard in time", len(all), events)
		}
	}
	b.Stop()
}
