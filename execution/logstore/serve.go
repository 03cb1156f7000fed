package logstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/httpapi"
)

const (
	writeTime = 30 * time.Second // a reader that takes nothing for so long is left
	heartbeat = 15 * time.Second
	window    = 64 << 10 // bytes of lines that are written at once
)

// shown is a line as the API writes it.
type shown struct {
	Time   time.Time `json:"time"`
	Stream string    `json:"stream"`
	Line   string    `json:"line"`
	Number int64     `json:"number"`
}

// Serve answers a request for an execution's log: the whole as text/plain, with
// Range; ?follow goes on until the end, ?tail=N, ?from= and ?to= give lines; Accept
// asks for application/x-ndjson or text/event-stream. ended says whether the
// execution's end has been saved.
func (s *Store) Serve(w http.ResponseWriter, r *http.Request, t ident.Tenant, e ident.Exec, ended func() bool) {
	l, err := s.find(r.Context(), t, e)
	if err != nil {
		httpapi.Fail(w, r, fmt.Errorf("the log of %s cannot be read: %w", e, err))
		return
	}
	defer l.release()
	q := r.URL.Query()
	number := func(name string) int64 {
		n, err := strconv.ParseInt(q.Get(name), 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	end, _, _ := l.snapshot()
	from, to, follow := max(1, number("from")), number("to"), q.Get("follow") == "true"
	if q.Has("tail") {
		from = max(from, end.line-number("tail"))
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	out := &output{w: w, c: http.NewResponseController(w)}
	accept := r.Header.Get("Accept")
	switch {
	case strings.Contains(accept, "text/event-stream"):
		w.Header().Set("Content-Type", "text/event-stream")
		if n, err := strconv.ParseInt(r.Header.Get("Last-Event-ID"), 10, 64); err == nil && n > 0 {
			from = max(from, n+1)
		}
		s.sendLines(out, r, l, from, to, follow, ": still here\n\n", func(b []byte, n int64, line []byte) []byte {
			b = append(strconv.AppendInt(append(b, "id: "...), n, 10), "\ndata: "...)
			return append(append(b, line...), "\n\n"...)
		})
	case strings.Contains(accept, "application/x-ndjson"):
		w.Header().Set("Content-Type", "application/x-ndjson")
		s.sendLines(out, r, l, from, to, follow, "", func(b []byte, _ int64, line []byte) []byte { return append(append(b, line...), '\n') })
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Fragua-Lines", strconv.FormatInt(end.line-1, 10))
		if follow {
			sendText(out, r, l, from, to)
			return
		}
		part := &text{l: l, size: end.text}
		if from > 1 {
			part.from = l.textAt(from)
		}
		if to > 0 && to < end.line-1 {
			part.size = l.textAt(to + 1)
		}
		part.size = max(0, part.size-part.from)
		out.c.SetWriteDeadline(time.Time{})
		httpapi.ServeContent(out, r, part)
	}
}

// output writes with a deadline for each write, not for all.
type output struct {
	w http.ResponseWriter
	c *http.ResponseController
}

func (o *output) Header() http.Header    { return o.w.Header() }
func (o *output) WriteHeader(status int) { o.w.WriteHeader(status) }
func (o *output) Write(p []byte) (int, error) {
	o.c.SetWriteDeadline(time.Now().Add(writeTime)) // where it is not supported there is none
	return o.w.Write(p)
}

// sendText writes the text from a line on, and goes on until line to, if there is
// one, or the log's end.
func sendText(out *output, r *http.Request, l *log, from, to int64) {
	at := int64(-1) // in the text, once line from is there
	for {
		end, over, grown := l.snapshot()
		if at < 0 && from < end.line {
			at = l.textAt(from)
		}
		stop, enough := end.text, to > 0 && to < end.line
		if enough && to < end.line-1 {
			stop = l.textAt(to + 1)
		}
		if at >= 0 && at < stop {
			n, err := io.Copy(out, &text{l: l, from: at, size: stop - at})
			if err != nil {
				return
			}
			at += n
		}
		if over || enough {
			return
		}
		if err := out.c.Flush(); err != nil {
			return
		}
		select {
		case <-grown:
		case <-r.Context().Done():
			return
		}
	}
}

var errEnough = errors.New("enough")

// sendLines writes lines as JSON, each wrapped as the client likes it, and beat now
// and then while there are none.
func (s *Store) sendLines(out *output, r *http.Request, l *log, from, to int64, follow bool, beat string, wrap func([]byte, int64, []byte) []byte) {
	var b []byte
	// fill takes lines into b, a few at a time: nothing of a chunk is held while a
	// reader lets us wait.
	fill := func() (all bool, err error) {
		for line, err := range l.lines(from) {
			if err != nil {
				return false, err
			}
			if to > 0 && line.Number > to {
				return false, errEnough
			}
			js, err := json.Marshal(shown{line.Time, line.Stream.String(), readable(line.Text), line.Number})
			if err != nil {
				return false, err
			}
			b, from = wrap(b, line.Number, js), line.Number+1
			if len(b) > window {
				return false, nil
			}
		}
		return true, nil
	}
	for {
		_, over, grown := l.snapshot()
		for all := false; !all; {
			var err error
			all, err = fill()
			if len(b) > 0 {
				if _, err := out.Write(b); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
			if b = b[:0]; cap(b) > 4*window { // a long line is not typical
				b = nil
			}
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
			b = append(b, beat...)
		case <-r.Context().Done():
			t.Stop()
			return
		}
	}
}

// readable returns a line as JSON can hold it.
func readable(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}
