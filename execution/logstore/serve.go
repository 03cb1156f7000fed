package logstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/httpapi"
)

const (
	writeTime = 30 * time.Second // a reader that takes nothing for so long is left
	heartbeat = 15 * time.Second
)

// Serve answers a request for an execution's log: the whole as text/plain, with
// Range; ?follow goes on until the end, ?tail=N, ?from= and ?to= give lines; Accept
// asks for application/x-ndjson or text/event-stream. ended says whether the
// execution's end has been saved.
func (s *Store) Serve(w http.ResponseWriter, r *http.Request, t ident.Tenant, e ident.Exec, ended func() bool) {
	l, err := s.find(r.Context(), t, e)
	if errors.Is(err, fs.ErrNotExist) {
		err = httpapi.Conflict("the file of this log is gone from the server's data folder: its lines cannot be read any more")
	} else if err != nil {
		err = fmt.Errorf("the log of %s cannot be read: %w", e, err)
	}
	if err != nil {
		httpapi.Fail(w, r, err)
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
		sendLines(out, r, &lines{l: l, next: from, to: to, events: true}, follow)
	case strings.Contains(accept, "application/x-ndjson"):
		w.Header().Set("Content-Type", "application/x-ndjson")
		sendLines(out, r, &lines{l: l, next: from, to: to}, follow)
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
			part.size = l.textTo(to)
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
			stop = l.textTo(to)
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
