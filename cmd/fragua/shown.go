package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// shown is what a run writes for its reader. When the reader has gone away, nobody
// follows the run any more: stop calls it off, as ctrl-C does.
type shown struct {
	w    io.Writer
	stop context.CancelFunc

	mu  sync.Mutex
	err error // why it cannot be written any more
}

// newShown also lets the program live on when its reader has gone: a signal would end it
// at once otherwise, and leave the run behind. Until ctx ends it looks whether the reader
// is there: a step that says nothing for long has nothing to be written.
func newShown(ctx context.Context, w io.Writer, stop context.CancelFunc) *shown {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // the write tells it, too
	s := &shown{w: w, stop: stop}
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeNamedPipe != 0 { // a terminal that closes has a signal of its own
			go s.watch(ctx, int(f.Fd()))
		}
	}
	return s
}

func (s *shown) watch(ctx context.Context, fd int) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		fds := []unix.PollFd{{Fd: int32(fd)}}
		if n, err := unix.Poll(fds, 0); err == nil && n > 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.fail(syscall.EPIPE)
			return
		}
	}
}

// Write writes nothing more once it could not: part of a line may be missing.
func (s *shown) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.w.Write(p)
	s.fail(err)
	return n, err
}

// fail takes note of why it cannot be written, if so; s.mu is held.
func (s *shown) fail(err error) {
	if s.err = err; errors.Is(err, syscall.EPIPE) {
		s.stop()
	}
}

// failed returns why not all was shown.
func (s *shown) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
