package httpapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// body bounds a request's body in size and time.
func (h *handler) body(w http.ResponseWriter, r *http.Request, clock *http.ResponseController, stream bool) *Problem {
	if stream && (r.Method == http.MethodPost || r.Method == http.MethodPut) {
		p := &patient{r.Body, clock, h.Timeout}
		p.wait() // net/http reads what a handler leaves
		r.Body = p
		return nil
	}
	if enc := r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return problem(http.StatusUnsupportedMediaType, "send the body as it is, without Content-Encoding")
	}
	if r.ContentLength > h.MaxBody {
		w.Header().Set("Connection", "close")
		return problem(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", h.MaxBody))
	}
	until, _ := h.bounds()
	_ = clock.SetReadDeadline(until)
	r.Body = http.MaxBytesReader(w, r.Body, h.MaxBody)
	return nil
}

// Bounds on what is read of a body that was refused.
const (
	heard    = 32 << 20 // bytes
	hearTime = 5 * time.Second
)

// hearOut reads on, up to a bound, what a client sends whose request was refused:
// many listen only when they have said all, and would find the connection broken
// in place of the answer. One that asked whether to send has not begun, and one that
// was silent for too long is not waited for again.
func (h *handler) hearOut(out *writer, body io.Reader, clock *http.ResponseController, waits bool) {
	if out.status < http.StatusBadRequest || out.status == http.StatusRequestTimeout || waits {
		return
	}
	_ = clock.SetReadDeadline(time.Now().Add(min(hearTime, h.Timeout))) // net/http, too, reads on before it writes
	_ = clock.Flush()                                                   // some do listen
	_, _ = io.CopyN(io.Discard, body, heard)                            // it was refused: how it ends is of no interest
}

// patience is how many times a request's time a stream waits for a client that
// does not read.
const patience = 5

// patient reads a body of any length, as long as some of it comes. At its end the
// deadline goes: from then on the server watches the connection, and would take
// the deadline for its end. Where the body breaks off it stays: net/http tries to read
// the rest before it writes the answer, and would wait for it without end.
type patient struct {
	io.ReadCloser
	clock *http.ResponseController
	each  time.Duration
}

func (p *patient) wait() { _ = p.clock.SetReadDeadline(time.Now().Add(p.each)) }

func (p *patient) Read(b []byte) (int, error) {
	p.wait()
	n, err := p.ReadCloser.Read(b)
	if errors.Is(err, io.EOF) {
		_ = p.clock.SetReadDeadline(time.Time{})
	}
	return n, err
}

// BrokeOff says that a body could not be read to its end, for a handler that reads it by
// itself; err is what the reading failed with.
func BrokeOff(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) { // the connection's, not the request's
		return problem(http.StatusRequestTimeout, "the body did not come in time")
	}
	return problem(http.StatusBadRequest, "the body broke off")
}
