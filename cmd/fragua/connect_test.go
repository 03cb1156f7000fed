package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func writeAddressOf(t *testing.T, dir string, l net.Listener) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "address"), []byte(l.Addr().String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// TestAServerThatStartsIsWaitedFor has a folder in which a server is starting, where
// one that was killed has left its address.
func TestAServerThatStartsIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	dead := listen(t)
	writeAddressOf(t, dir, dead)
	dead.Close()
	lock, err := lockDir(dir, asServer)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if h, err := look(dir); err != nil || !h.held || h.as != asServer || h.url != "" {
		t.Errorf("%+v, %v: want a server that does not answer yet", h, err)
	}
	type found struct {
		h   holder
		err error
	}
	done := make(chan found, 1)
	go func() {
		h, err := find(t.Context(), dir, 0, io.Discard)
		done <- found{h, err}
	}()
	alive := listen(t)
	writeAddressOf(t, dir, alive)
	if f := <-done; f.err != nil || f.h.url != "http://"+alive.Addr().String() {
		t.Errorf("found %+v, %v; want %v", f.h, f.err, alive.Addr())
	}
}

func TestNobodyIsWaitedForInAFolderThatIsFree(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		h, err := find(t.Context(), dir, soonTime, io.Discard)
		if waited := time.Since(began); err != nil || h.held || waited < soonTime || waited > soonTime+time.Second {
			t.Errorf("%+v, %v after %v", h, err, waited)
		}
	})
}

// TestAServerWaitsForARunToEnd has them started at once, and the run be faster.
func TestAServerWaitsForARunToEnd(t *testing.T) {
	for _, c := range []struct {
		holds, comes string
		gets         bool
	}{{asRun, asServer, true}, {asCommand, asServer, true}, {asServer, asServer, false}, {asRun, asRun, false}} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			held, err := lockDir(dir, c.holds)
			if err != nil {
				t.Fatal(err)
			}
			ends := time.AfterFunc(patience/2, func() { held.Close() })
			told := ""
			l, err := lockSoon(t.Context(), dir, c.comes, func(by string) { told += by })
			if c.gets && (err != nil || !strings.HasPrefix(told, c.holds+" (process ") || lockedBy(dir) != c.comes) || !c.gets && err == nil {
				t.Errorf("%s after %s: %v, told of %q, signed %q", c.comes, c.holds, err, told, lockedBy(dir))
			}
			if ends.Stop() {
				held.Close()
			}
			l.Close()
		})
	}
}
