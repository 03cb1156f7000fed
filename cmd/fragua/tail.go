package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
)

const (
	tailLines = 30  // that are kept of a step
	tailShown = 4   // of a step that runs
	lineKept  = 400 // bytes of a line
)

// tail keeps the last lines of a log.
type tail struct {
	mu    sync.Mutex
	lines []string
}

// read takes lines until r ends, and returns why if that is not its end; each is
// called with every one of them.
func (t *tail) read(r io.Reader, each func([]byte)) error {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			line = bytes.TrimRight(line, "\r\n")
			if each != nil {
				each(line)
			}
			t.keep(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

func (t *tail) keep(line []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == tailLines {
		t.lines = append(t.lines[:0], t.lines[1:]...)
	}
	t.lines = append(t.lines, plainLine(line))
}

func (t *tail) last(n int) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.lines[max(0, len(t.lines)-n):]...)
}

// plainLine makes of a line of a log what can stand on a screen that is redrawn:
// without escapes, a line that was written over as it was in the end, and not long.
func plainLine(line []byte) string {
	if at := bytes.LastIndexByte(line, '\r'); at >= 0 {
		line = line[at+1:]
	}
	var b bytes.Buffer
	_, _ = (&calm{w: &b, plain: true}).Write(line[:min(len(line), 4*lineKept)]) // a buffer takes all
	line = bytes.ReplaceAll(b.Bytes(), []byte("\t"), []byte("    "))
	return printable(strings.ToValidUTF8(string(line[:min(len(line), lineKept)]), ""))
}
