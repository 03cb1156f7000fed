package agent

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/logframe"
)

// inMemory is how much of a log is kept in memory before it goes to a file.
const inMemory = 64 << 10

// spool keeps an execution's frames until they are fetched: in memory while there
// are few, in a file of the worker's folder when there are more. Whoever writes
// never waits for whoever reads.
type spool struct {
	name string

	mu     sync.Mutex
	grown  chan struct{} // closed when there is more, or the end
	mem    []byte
	file   *os.File
	n      int64 // bytes of frames
	text   int64 // bytes of text, for the bound
	full   bool
	over   bool
	broken bool  // the file cannot be written: what came after is lost, and said to be
	filed  int64 // then, what the file holds; the mark after it is in memory
}

func newSpool(name string) *spool { return &spool{name: name, grown: make(chan struct{})} }

// add appends a frame of whole lines.
func (s *spool) add(stream logframe.Stream, text []byte) {
	if len(text) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full || s.over {
		return
	}
	if s.text += int64(len(text)); s.text > agentapi.MaxLog {
		s.full = true
		s.append(logframe.Frame{Stream: logframe.Mark, Time: time.Now(), Text: []byte("… the log is cut here: it is longer than 1 GiB\n")})
		return
	}
	s.append(logframe.Frame{Stream: stream, Time: time.Now(), Text: text})
}

// mark says something in the platform's own name.
func (s *spool) mark(text string) { s.add(logframe.Mark, []byte("… "+text+"\n")) }

func (s *spool) append(f logframe.Frame) {
	if s.broken {
		return
	}
	if s.file == nil {
		if len(s.mem)+logframe.HeaderLen+len(f.Text) <= inMemory {
			s.mem = logframe.Append(s.mem, f)
			s.more(int64(len(s.mem)) - s.n)
			return
		}
		if err := s.spill(); err != nil {
			s.lose(err)
			return
		}
	}
	var head [logframe.HeaderLen]byte
	h := logframe.Append(head[:0], logframe.Frame{Stream: f.Stream, Time: f.Time, Text: nil})
	h[9], h[10], h[11], h[12] = byte(len(f.Text)>>24), byte(len(f.Text)>>16), byte(len(f.Text)>>8), byte(len(f.Text))
	if _, err := s.file.WriteAt(h, s.n); err != nil {
		s.lose(err)
		return
	}
	if _, err := s.file.WriteAt(f.Text, s.n+logframe.HeaderLen); err != nil {
		s.lose(err)
		return
	}
	s.more(int64(logframe.HeaderLen + len(f.Text)))
}

func (s *spool) more(n int64) {
	s.n += n
	close(s.grown)
	s.grown = make(chan struct{})
}

// spill moves what is in memory to a file.
func (s *spool) spill() error {
	f, err := os.OpenFile(s.name, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(s.mem, 0); err != nil {
		f.Close()
		return err
	}
	s.file, s.mem = f, nil
	return nil
}

// lose notes, in memory, that the rest cannot be kept.
func (s *spool) lose(err error) {
	s.broken = true
	if s.file != nil {
		s.filed = s.n
	}
	m := logframe.Append(nil, logframe.Frame{Stream: logframe.Mark, Time: time.Now(), Text: fmt.Appendf(nil, "… the log is cut here: %v\n", err)})
	s.mem = append(s.mem, m...)
	s.more(int64(len(m)))
}

// finish says that nothing follows.
func (s *spool) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.over = true
		close(s.grown)
	}
}

func (s *spool) size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// read fills p from offset at. At the end of what is there it returns a channel
// that is closed when there is more, or io.EOF if there never will be.
func (s *spool) read(p []byte, at int64) (n int, wait <-chan struct{}, err error) {
	s.mu.Lock()
	left, file, over, grown := s.n-at, s.file, s.over, s.grown
	if s.broken && file != nil {
		if left = s.filed - at; left <= 0 {
			left, file = s.n-at, nil
		}
	}
	if left > 0 && file == nil {
		n = copy(p, s.mem[at-s.filed:])
	}
	s.mu.Unlock()
	switch {
	case left <= 0 && over:
		return 0, nil, io.EOF
	case left <= 0:
		return 0, grown, nil
	case file != nil:
		n, err = file.ReadAt(p[:min(int64(len(p)), left)], at)
	}
	return n, nil, err
}

// short returns all frames, if they are few.
func (s *spool) short(most int) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil || len(s.mem) > most {
		return nil, false
	}
	return s.mem, true
}

// spilled says whether there is a file.
func (s *spool) spilled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file != nil
}

func (s *spool) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		s.file.Close()
	}
}
