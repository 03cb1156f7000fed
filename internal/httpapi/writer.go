package httpapi

import (
	"io"
	"net/http"
	"strings"
	"time"
)

// writer makes an error in plain text, as the mux and http.Error write it, into
// a problem, and remembers whether the answer has begun.
type writer struct {
	http.ResponseWriter
	status   int
	swallow  bool   // what follows is the text that was replaced
	headOnly func() // of a HEAD: ends the handler once its header is written

	clock    *http.ResponseController // of a stream
	patience time.Duration            // how long one write of a stream may take
}

// piece is how much of a file must have gone within a stream's patience.
const piece = 4 << 20

// wait gives the client of a stream its time anew.
func (w *writer) wait() {
	if w.clock != nil {
		_ = w.clock.SetWriteDeadline(time.Now().Add(w.patience))
	}
}

// Unwrap lets http.ResponseController reach the connection.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) WriteHeader(status int) {
	if status < 200 { // 100 and 103 come before the answer
		w.ResponseWriter.WriteHeader(status)
		return
	}
	if w.status != 0 {
		return
	}
	w.status = status
	if status >= 400 && strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		w.swallow = true
		w.Header().Set("Cache-Control", "no-store") // http.Error has taken it away
		detail := details[status]
		if status == http.StatusRequestedRangeNotSatisfiable && w.Header().Get("Content-Range") == "" {
			detail = "the range cannot be read: want bytes=FROM-TO, bytes=FROM- or bytes=-LAST"
		}
		problem(status, detail).write(&writer{ResponseWriter: w.ResponseWriter})
	} else {
		w.ResponseWriter.WriteHeader(status)
	}
	if w.headOnly != nil {
		w.headOnly()
	}
}

var details = map[int]string{
	http.StatusNotFound:                     "no such path",
	http.StatusRequestedRangeNotSatisfiable: "the content has no such range; Content-Range says how long it is",
	http.StatusMethodNotAllowed:             "this path does not know the method; Allow says which it knows",
}

func (w *writer) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.swallow {
		return len(p), nil
	}
	w.wait()
	return w.ResponseWriter.Write(p)
}

// ReadFrom lets a file go to the connection without passing through this process.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	from, ok := w.ResponseWriter.(io.ReaderFrom)
	if !ok || w.swallow {
		return io.Copy(onlyWrite{w}, r)
	}
	if w.clock == nil {
		return from.ReadFrom(r)
	}
	for n := int64(0); ; {
		w.wait()
		m, err := from.ReadFrom(io.LimitReader(r, piece))
		n += m
		if err != nil || m < piece {
			return n, err
		}
	}
}

type onlyWrite struct{ io.Writer }

// Flush sends what is written so far.
func (w *writer) Flush() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.wait()
	_ = http.NewResponseController(w.ResponseWriter).Flush() // a writer that cannot flush does not hold back either
}
