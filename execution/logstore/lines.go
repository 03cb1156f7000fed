package logstore

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"
)

// window is how many bytes of lines are written at once. It is all that a reader
// costs, however long a line is, and however much of it JSON escapes.
const window = 64 << 10

var errEnough = errors.New("enough")

// lines writes lines of a log as JSON, as much at a time as a window holds: nothing
// of a chunk is held while a reader lets us wait.
type lines struct {
	l      *log
	next   int64 // the line to go on with
	at     int   // what is written of its text; of its beginning when it is open
	open   bool
	to     int64 // the last one, if any
	events bool  // each as a server-sent event
}

// fill appends lines to b until that is full, or all that are there now are written.
func (s *lines) fill(b []byte) (_ []byte, all bool, err error) {
	for line, err := range s.l.lines(s.next) {
		if err != nil {
			return b, false, err
		}
		if s.to > 0 && line.Number > s.to {
			return b, false, errEnough
		}
		if !s.open {
			if b, err = s.begin(b, line); err != nil {
				return b, false, err
			}
			s.open, s.at = true, 0
		}
		var n int
		b, n = appendJSON(b, line.Text[min(s.at, len(line.Text)):], window)
		if s.at += n; s.at < len(line.Text) {
			return b, false, nil
		}
		b = append(strconv.AppendInt(append(b, `","number":`...), line.Number, 10), "}\n"...)
		if s.events {
			b = append(b, '\n')
		}
		s.open, s.next = false, line.Number+1
		if len(b) >= window {
			return b, false, nil
		}
	}
	return b, true, nil
}

// begin appends what stands before a line's text.
func (s *lines) begin(b []byte, line Line) ([]byte, error) {
	if s.events {
		b = append(strconv.AppendInt(append(b, "id: "...), line.Number, 10), "\ndata: "...)
	}
	at, err := line.Time.MarshalJSON()
	if err != nil {
		return b, err
	}
	b = append(append(b, `{"time":`...), at...)
	return fmt.Appendf(b, `,"stream":"%s","line":"`, line.Stream), nil
}

// appendJSON appends text as it stands in a JSON string that does no harm in HTML, until
// b has most bytes or a few more, and returns how much of text that was. What is not
// UTF-8 is one U+FFFD, however long.
func appendJSON(b, text []byte, most int) (_ []byte, n int) {
	for n < len(text) && len(b) < most {
		from := n
		for n < len(text) && n-from < most-len(b) && plain[text[n]] {
			n++
		}
		if n > from {
			b = append(b, text[from:n]...)
			continue
		}
		if c := text[n]; c < utf8.RuneSelf {
			b, n = appendEscape(b, c), n+1
			continue
		}
		switch c, size := utf8.DecodeRune(text[n:]); {
		case c == utf8.RuneError && size == 1:
			for c == utf8.RuneError && size == 1 {
				n += size
				c, size = utf8.DecodeRune(text[n:])
			}
			b = utf8.AppendRune(b, utf8.RuneError)
		case c == '\u2028', c == '\u2029': // JavaScript's line ends
			b, n = fmt.Appendf(b, `\u%04x`, c), n+size
		default:
			b, n = append(b, text[n:n+size]...), n+size
		}
	}
	return b, n
}

// plain says which bytes stand for themselves in a JSON string.
var plain = func() (is [256]bool) {
	for c := byte(' '); c < utf8.RuneSelf; c++ {
		is[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return is
}()

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, `\b`...)
	case '\f':
		return append(b, `\f`...)
	case '\n':
		return append(b, `\n`...)
	case '\r':
		return append(b, `\r`...)
	case '\t':
		return append(b, `\t`...)
	default:
		return fmt.Appendf(b, `\u%04x`, c)
	}
}

// sendLines writes lines, and signs of life where a client can tell them from lines
// while there are none; with follow it goes on until the log's end.
func sendLines(out *output, r *http.Request, s *lines, follow bool) {
	var b []byte
	for {
		_, over, grown := s.l.snapshot()
		for all := false; !all; {
			var err error
			b, all, err = s.fill(b)
			if len(b) > 0 {
				if _, err := out.Write(b); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
			b = b[:0]
		}
		if over || !follow {
			return
		}
		if out.c.Flush() != nil {
			return
		}
		t := time.NewTimer(heartbeat)
		select {
		case <-grown:
			t.Stop()
		case <-t.C:
			if s.events {
				b = append(b, ": still here\n\n"...)
			}
		case <-r.Context().Done():
			t.Stop()
			return
		}
	}
}
