package logstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"fragua.dev/fragua/contract/logframe"
)

// A Line is one line of a log.
type Line struct {
	Time   time.Time
	Stream logframe.Stream
	Number int64  // from 1, over both streams
	Text   []byte // without its line feed
}

// lines yields the lines from number from on, up to what is there now.
func (l *log) lines(from int64) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		for n := max(1, from); ; {
			c, frames, ok, err := l.part(n, endLine)
			if !ok {
				return
			}
			if err != nil { // a hole is shown as a hole
				if !yield(Line{Stream: logframe.Mark, Number: n, Text: fmt.Appendf(nil, "… %d lines are missing: %v", c.line+c.lines-n, err)}, nil) {
					return
				}
				n = c.line + c.lines
				continue
			}
			at := c.line
			for len(frames) > 0 {
				f, rest, err := logframe.Parse(frames)
				if err != nil {
					yield(Line{}, err)
					return
				}
				for text := f.Text; len(text) > 0; at++ {
					line, more, _ := bytes.Cut(text, []byte{'\n'})
					text = more
					if at >= n && !yield(Line{f.Time, f.Stream, at, line}, nil) {
						return
					}
				}
				frames = rest
			}
			n = at
		}
	}
}

// textAt returns where in the text a line begins.
func (l *log) textAt(line int64) int64 {
	c, frames, ok, err := l.part(line, endLine)
	if !ok || err != nil {
		return c.text + map[bool]int64{true: 0, false: c.bytes}[ok]
	}
	text := textOf(frames)
	off := 0
	for n := c.line; n < line; n++ {
		i := bytes.IndexByte(text[off:], '\n')
		if i < 0 {
			return c.text + c.bytes
		}
		off += i + 1
	}
	return c.text + int64(off)
}

// text is a part of a log's text, as a file.
type text struct {
	l          *log
	from, size int64 // of the part
	at         int64 // in the part
	have       []byte
	haveAt     int64 // in the text
}

// Read reads the text on. A chunk that is damaged reads as a line that says so, and
// as line feeds.
func (t *text) Read(p []byte) (int, error) {
	if t.at >= t.size {
		return 0, io.EOF
	}
	n := t.from + t.at
	if n < t.haveAt || n >= t.haveAt+int64(len(t.have)) {
		c, frames, ok, err := t.l.part(n, endText)
		switch {
		case !ok:
			return 0, io.EOF
		case errors.Is(err, errHole):
			t.have = bytes.Repeat([]byte{'\n'}, int(c.bytes))
			copy(t.have, fmt.Sprintf("… %d lines are missing: %v\n", c.lines, err))
		case err != nil:
			return 0, err
		default:
			t.have = textOf(frames)
		}
		t.haveAt = c.text
	}
	p = p[:min(int64(len(p)), t.size-t.at)]
	k := copy(p, t.have[n-t.haveAt:])
	t.at += int64(k)
	return k, nil
}

// Seek moves within the part.
func (t *text) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += t.at
	case io.SeekEnd:
		offset += t.size
	}
	if offset < 0 {
		return 0, errors.New("logstore: before the start")
	}
	t.at = offset
	return offset, nil
}
