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
				if frames = rest; at+f.Lines() <= n {
					at += f.Lines()
					continue
				}
				for text := f.Text; len(text) > 0; at++ {
					line, more, _ := bytes.Cut(text, []byte{'\n'})
					text = more
					if at >= n && !yield(Line{f.Time, f.Stream, at, line}, nil) {
						return
					}
				}
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
	at, off := c.line, c.text
	for len(frames) > 0 {
		f, rest, err := logframe.Parse(frames)
		if err != nil {
			break
		}
		if frames = rest; at+f.Lines() <= line {
			at, off = at+f.Lines(), off+int64(len(f.Text))
			continue
		}
		for ; at < line; at++ {
			i := bytes.IndexByte(f.Text, '\n') + 1
			f.Text, off = f.Text[i:], off+int64(i)
		}
		return off
	}
	return c.text + c.bytes
}

// textTo returns where in the text a line ends; of one in a hole, where the hole does.
func (l *log) textTo(line int64) int64 {
	if c, _, ok, err := l.part(line, endLine); ok && err != nil {
		return endText(c)
	}
	return l.textAt(line + 1)
}

// text is a part of a log's text, as a file.
type text struct {
	l          *log
	from, size int64 // of the part
	at         int64 // in the part

	// Where the last read ended: a frame of a part of the log.
	part    int64 // where that begins in the text
	frame   int   // where the frame begins in it,
	frameAt int64 // and in the text
}

// Read reads the text on. A chunk that is damaged reads as a line that says so, and
// as line feeds.
func (t *text) Read(p []byte) (int, error) {
	if t.at >= t.size {
		return 0, io.EOF
	}
	n := t.from + t.at
	c, frames, ok, err := t.l.part(n, endText)
	if !ok {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), t.size-t.at)]
	var k int
	switch {
	case errors.Is(err, errHole):
		k = c.hole(p, n, err)
	case err != nil:
		return 0, err
	default:
		k = t.copy(p, c, frames, n)
	}
	if t.at += int64(k); k == 0 && len(p) > 0 {
		return 0, io.ErrUnexpectedEOF
	}
	return k, nil
}

// copy copies text of frames, from byte n of the whole text on.
func (t *text) copy(p []byte, c chunk, frames []byte, n int64) (k int) {
	if t.part != c.text || t.frameAt < c.text || t.frameAt > n || t.frame > len(frames) {
		t.part, t.frame, t.frameAt = c.text, 0, c.text
	}
	for k < len(p) && t.frame < len(frames) {
		f, _, err := logframe.Parse(frames[t.frame:])
		if err != nil {
			return k
		}
		end := t.frameAt + int64(len(f.Text))
		if n < end {
			m := copy(p[k:], f.Text[n-t.frameAt:])
			k, n = k+m, n+int64(m)
		}
		if n < end {
			break
		}
		t.frame, t.frameAt = t.frame+logframe.HeaderLen+len(f.Text), end
	}
	return k
}

// hole fills p with what a damaged chunk reads as, from byte n of the whole text on.
func (c chunk) hole(p []byte, n int64, why error) int {
	said := fmt.Sprintf("… %d lines are missing: %v\n", c.lines, why)
	said = said[:min(int64(len(said)), c.bytes)]
	p = p[:min(int64(len(p)), endText(c)-n)]
	for i := range p {
		p[i] = '\n'
	}
	if at := n - c.text; at < int64(len(said)) {
		copy(p, said[at:])
	}
	return len(p)
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
