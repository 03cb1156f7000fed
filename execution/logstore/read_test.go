package logstore

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fragua.dev/fragua/contract/logframe"
	"fragua.dev/fragua/internal/sqldb"
)

func openStore(t *testing.T) *Store {
	t.Helper()
	dir := t.TempDir()
	db, err := sqldb.Open(t.Context(), filepath.Join(dir, "test.db"), Schema)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s, err := Open(Config{DB: db, Dir: filepath.Join(dir, "logs"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// keep writes a log of about so many bytes, and returns its text.
func keep(t *testing.T, s *Store, size int) string {
	t.Helper()
	w, err := s.Writer("acme", "exe_1")
	if err != nil {
		t.Fatal(err)
	}
	var frames []byte
	var text strings.Builder
	rng := rand.New(rand.NewPCG(1, 2))
	for i := 1; text.Len() < size; i++ {
		var lines []byte
		for range 1 + rng.IntN(200) {
			lines = fmt.Appendf(lines, "%x\n", rng.Uint64())
		}
		text.Write(lines)
		frames = logframe.Append(frames, logframe.Frame{Stream: logframe.Stdout, Time: time.Unix(int64(i), 0), Text: lines})
	}
	if err := w.Copy(t.Context(), bytes.NewReader(frames)); err != nil {
		t.Fatal(err)
	}
	seal(t, s, w, true)
	return text.String()
}

// seal ends a log as the execution room does.
func seal(t *testing.T, s *Store, w *Writer, whole bool) LogInfo {
	t.Helper()
	index, info, err := w.Finish(whole)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cfg.DB.Write(t.Context(), index); err != nil {
		t.Fatal(err)
	}
	w.Release()
	return info
}

func ended() bool { return true }

// TestReadWhatWasPrinted compares parts of a log of several chunks with its text.
func TestReadWhatWasPrinted(t *testing.T) {
	s := openStore(t)
	text := keep(t, s, 3<<20)
	lines := strings.SplitAfter(text, "\n")
	get := func(query, ask string) string {
		r := httptest.NewRequest(http.MethodGet, "/logs/exe_1?"+query, nil)
		if ask != "" {
			r.Header.Set("Range", ask)
		}
		w := httptest.NewRecorder()
		s.Serve(w, r, "acme", "exe_1", ended)
		return w.Body.String()
	}
	if get("", "") != text || get("follow=true", "") != text {
		t.Error("the whole log is another")
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		from := rng.IntN(len(text))
		to := from + rng.IntN(len(text)-from)
		if got := get("", fmt.Sprintf("bytes=%d-%d", from, to)); got != text[from:to+1] {
			t.Fatalf("bytes %d to %d: %d bytes of another text", from, to, len(got))
		}
		first := 1 + rng.IntN(len(lines)-2)
		last := first + rng.IntN(1000)
		if got, want := get(fmt.Sprintf("from=%d&to=%d", first, last), ""), strings.Join(lines[first-1:min(last, len(lines))], ""); got != want {
			t.Fatalf("lines %d to %d: %d bytes, want %d", first, last, len(got), len(want))
		}
	}
}

// TestAReaderThatHasGoneIsNoFault asks for a log in a request that was cancelled.
func TestAReaderThatHasGoneIsNoFault(t *testing.T) {
	s := openStore(t)
	keep(t, s, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var said bytes.Buffer
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.NewTextHandler(&said, nil)))
	w := httptest.NewRecorder()
	s.Serve(w, httptest.NewRequest(http.MethodGet, "/logs/exe_1", nil).WithContext(ctx), "acme", "exe_1", ended)
	if w.Code != 499 || said.Len() > 0 {
		t.Errorf("%d, and in the log %q", w.Code, said.String())
	}
}

// stuck is a client that never reads.
type stuck struct {
	head    http.Header
	blocked *sync.WaitGroup
	release chan struct{}
	once    sync.Once
}

func (s *stuck) Header() http.Header { return s.head }
func (s *stuck) WriteHeader(int)     {}
func (s *stuck) Write([]byte) (int, error) {
	s.once.Do(s.blocked.Done)
	<-s.release
	return 0, http.ErrHandlerTimeout
}

// heldBy returns how many bytes readers hold that ask for a log, and never read.
func heldBy(s *Store, readers int, ask func(i int) *http.Request) int64 {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	var blocked, over sync.WaitGroup
	release := make(chan struct{})
	before := heap()
	blocked.Add(readers)
	for i := range readers {
		over.Go(func() {
			s.Serve(&stuck{head: http.Header{}, blocked: &blocked, release: release}, ask(i), "acme", "exe_1", ended)
		})
	}
	blocked.Wait()
	grown := heap() - before
	close(release)
	over.Wait()
	return grown
}

// TestReadersThatNeverReadHoldLittle has fifty of them wait in a log, each in
// another place.
func TestReadersThatNeverReadHoldLittle(t *testing.T) {
	s := openStore(t)
	total := len(keep(t, s, 12<<20)) / 17 // lines, about
	const readers = 50
	grown := heldBy(s, readers, func(i int) *http.Request {
		r := httptest.NewRequest(http.MethodGet, "/logs/exe_1?from="+strconv.Itoa(1+i*total/readers), nil)
		r.Header.Set("Accept", []string{"text/plain", "application/x-ndjson", "text/event-stream"}[i%3])
		return r
	})
	if most := int64(maxCached*(chunkRaw+256<<10) + readers*(256<<10)); grown > most {
		t.Errorf("%d readers hold %d bytes, want %d at most", readers, grown, most)
	}
	t.Logf("%d bytes", grown)
}

func TestReadersAreCounted(t *testing.T) {
	s := openStore(t)
	var free []func()
	for range maxReaders {
		done, ok := s.Reader()
		if !ok {
			t.Fatal("refused")
		}
		free = append(free, done)
	}
	if _, ok := s.Reader(); ok {
		t.Error("more than there is room for")
	}
	free[0]()
	if _, ok := s.Reader(); !ok {
		t.Error("a place that was given back is not free")
	}
}

func TestAStreamThatIsQuietShowsSignsOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t)
		w, err := s.Writer("acme", "exe_1")
		if err != nil {
			t.Fatal(err)
		}
		defer w.Release()
		ctx, cancel := context.WithCancel(t.Context())
		r := httptest.NewRequest(http.MethodGet, "/logs/x?follow=true", nil).WithContext(ctx)
		r.Header.Set("Accept", "text/event-stream")
		got, done := httptest.NewRecorder(), make(chan struct{})
		go func() {
			defer close(done)
			s.Serve(got, r, "acme", "exe_1", ended)
		}()
		time.Sleep(3*heartbeat + time.Second) // of the test's own time
		cancel()
		<-done
		if want := strings.Repeat(": still here\n\n", 3); got.Body.String() != want {
			t.Errorf("%q, want %q", got.Body, want)
		}
	})
}
