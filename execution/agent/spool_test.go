package agent

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/logframe"
)

// fetch reads a spool to its end, size bytes at a time, as whoever fetches a log.
func fetch(s *spool, size int) ([]byte, error) {
	var all []byte
	p := make([]byte, size)
	for {
		n, wait, err := s.read(p, int64(len(all)))
		all = append(all, p[:n]...)
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return all, err
		case n == 0:
			<-wait
		}
	}
}

// framesOf returns the frames of a stream, which has to be whole.
func framesOf(t interface{ Fatalf(string, ...any) }, b []byte) (all []logframe.Frame) {
	for len(b) > 0 {
		f, rest, err := logframe.Parse(b)
		if err != nil {
			t.Fatalf("after %d frames: %v", len(all), err)
		}
		all, b = append(all, f), rest
	}
	return all
}

// TestASpoolGivesBackWhatItTook writes frames of all sizes, while several read.
func TestASpoolGivesBackWhatItTook(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		s := newSpool(filepath.Join(dir, "log"))
		defer s.close()
		var want [][]byte
		for range rapid.IntRange(0, 20).Draw(t, "frames") {
			size := rapid.IntRange(0, rapid.SampledFrom([]int{10, 10, 5000, 70_000}).Draw(t, "most")).Draw(t, "size")
			want = append(want, bytes.Repeat([]byte{byte(len(want))}, size))
		}
		var readers sync.WaitGroup
		got := make([][]byte, 3)
		for i, size := range []int{7 << 10, 64 << 10, 1 << 20} {
			readers.Go(func() {
				var err error
				if got[i], err = fetch(s, size); err != nil {
					t.Errorf("read: %v", err)
				}
			})
		}
		n := 0
		for i, text := range want {
			s.add(logframe.Stream(1+i%2), text)
			if len(text) > 0 {
				n += logframe.HeaderLen + len(text)
			}
		}
		s.finish()
		s.finish() // once more changes nothing
		s.add(logframe.Stdout, []byte("after the end\n"))
		readers.Wait()
		if s.size() != int64(n) || s.spilled() != (n > inMemory) {
			t.Fatalf("%d bytes, want %d; in a file: %v", s.size(), n, s.spilled())
		}
		for _, b := range got {
			i := 0
			for _, f := range framesOf(t, b) {
				for len(want[i]) == 0 {
					i++
				}
				if !bytes.Equal(f.Text, want[i]) || f.Stream != logframe.Stream(1+i%2) || f.Time.IsZero() {
					t.Fatalf("frame %d is %d bytes of %s", i, len(f.Text), f.Stream)
				}
				i++
			}
			if len(b) != n {
				t.Fatalf("%d bytes were read, want %d", len(b), n)
			}
		}
		if short, ok := s.short(1 << 10); ok != (n <= 1<<10) || ok && !bytes.Equal(short, got[0]) {
			t.Fatalf("short: %v, %d bytes", ok, len(short))
		}
	})
}

func TestALogThatIsTooLongIsCutWithAMark(t *testing.T) {
	s := newSpool(filepath.Join(t.TempDir(), "log"))
	defer s.close()
	s.add(logframe.Stdout, []byte("first\n"))
	s.text = agentapi.MaxLog - 3 // as if so much had been printed
	for range 3 {
		s.add(logframe.Stdout, []byte("four\n"))
	}
	s.add(logframe.Stdout, []byte("x\n"))
	s.finish()
	b, err := fetch(s, 100)
	if err != nil {
		t.Fatal(err)
	}
	f := framesOf(t, b)
	if len(f) != 2 || f[1].Stream != logframe.Mark || !strings.Contains(string(f[1].Text), "cut here") {
		t.Errorf("it holds %q", b)
	}
}

// TestADiskThatTakesNothingIsSaid lets the file refuse what is written.
func TestADiskThatTakesNothingIsSaid(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcde\n"), inMemory/16)
	for name, spoil := range map[string]func(s *spool){
		"no file": func(s *spool) { s.name = filepath.Join(s.name, "no", "such", "folder") },
		"a file that is full": func(s *spool) {
			s.add(logframe.Stdout, big)
			s.file.Close()
			var err error
			if s.file, err = os.Open(s.name); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpool(filepath.Join(t.TempDir(), "log"))
			defer s.close()
			s.add(logframe.Stdout, []byte("first\n"))
			spoil(s)
			before := s.size()
			s.add(logframe.Stdout, big)
			s.add(logframe.Stdout, []byte("lost\n"))
			s.finish()
			b, err := fetch(s, 10_000)
			if err != nil || int64(len(b)) != s.size() {
				t.Fatalf("%d bytes of %d: %v", len(b), s.size(), err)
			}
			f := framesOf(t, b[before:])
			if len(f) != 1 || f[0].Stream != logframe.Mark || !strings.Contains(string(f[0].Text), "cut here") {
				t.Errorf("after what was kept: %q", b[before:])
			}
		})
	}
}
