package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/sqldb"
)

// Bounds of one answer about faults.
const (
	maxFaults   = 100
	maxLocation = 256
	maxMessage  = 1024
)

// Problem is an answer to a request that was not done: RFC 9457's problem
// details. It never holds a value of the request.
type Problem struct {
	Type     string         `json:"type" example:"about:blank"`
	Title    string         `json:"title" example:"Unprocessable Entity"`
	Status   int            `json:"status" example:"422"`
	Detail   string         `json:"detail,omitempty" doc:"What happened, and what would help"`
	Decision ident.Decision `json:"decision_id,omitempty" doc:"Of a denial: its name in the audit trail"`
	Errors   []Fault        `json:"errors,omitempty" doc:"All that is wrong with the input"`

	headers http.Header
}

// A Fault is one thing that is wrong with the input.
type Fault struct {
	Location string `json:"location" example:"body.spec.command" doc:"Where it is wrong"`
	Message  string `json:"message" doc:"What is wrong, and what would be right"`
}

// Error returns what happened.
func (p *Problem) Error() string { return cmp.Or(p.Detail, p.Title) }

// GetStatus returns the HTTP status; huma asks for it.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders returns headers that belong to the answer; huma asks for them.
func (p *Problem) GetHeaders() http.Header { return p.headers }

// ContentType returns the media type of a problem; huma asks for it.
func (p *Problem) ContentType(string) string { return mediaProblem }

func problem(status int, detail string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
}

// NotFound says that there is no such thing, or that it is another tenant's.
func NotFound(what string) error { return problem(http.StatusNotFound, "no such "+what) }

// Conflict says that the request contradicts what is there.
func Conflict(detail string) error { return problem(http.StatusConflict, detail) }

// BadRequest says that the request cannot be read.
func BadRequest(detail string) error { return problem(http.StatusBadRequest, detail) }

// TooMany says that the caller, or everyone, asks too much, and when to try again.
func TooMany(after time.Duration, detail string) error {
	return retry(http.StatusTooManyRequests, after, detail)
}

// NotReady says that the server cannot do it now.
func NotReady(detail string) error { return retry(http.StatusServiceUnavailable, time.Second, detail) }

func retry(status int, after time.Duration, detail string) *Problem {
	p := problem(status, detail)
	seconds := max(1, int64((after+time.Second-1)/time.Second))
	p.headers = http.Header{"Retry-After": {strconv.FormatInt(seconds, 10)}}
	return p
}

// Invalid says everything that is wrong with the specification that stands at at:
// body, or body.spec.
func Invalid(at string, faults []spec.Fault) error {
	p := problem(http.StatusUnprocessableEntity, "the input is not valid")
	for _, f := range faults {
		p.add(within(at, f.Path), f.Message)
	}
	p.bound()
	return p
}

// BadCursor says that no listing gave the cursor of a query.
func BadCursor() error {
	return Invalid("query", []spec.Fault{{Path: "cursor", Message: "no listing of this kind gave it: want the next_cursor of the page before"}})
}

func (p *Problem) add(location, message string) {
	p.Errors = append(p.Errors, Fault{shorten(location, maxLocation), shorten(message, maxMessage)})
}

// bound sorts the faults, and keeps as many as anyone will read.
func (p *Problem) bound() {
	slices.SortStableFunc(p.Errors, func(a, b Fault) int { return cmp.Compare(a.Location, b.Location) })
	if n := len(p.Errors) - maxFaults; n > 0 {
		p.Errors = append(p.Errors[:maxFaults:maxFaults], Fault{"body", fmt.Sprintf("and %d more", n)})
	}
}

func shorten(s string, n int) string {
	if len(s) <= n {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.ToValidUTF8(s[:n], "\uFFFD") + "…"
}

// newProblem makes a problem of what huma found. Values are left out, and huma's
// own words are made into ours where they would say less.
func newProblem(status int, detail string, errs ...error) huma.StatusError {
	p := problem(status, detail)
	if detail == "validation failed" {
		p.Detail = "the input is not valid"
		if status == http.StatusBadRequest {
			p.Detail = "the body cannot be read"
		}
	}
	p.told(errs)
	p.bound()
	return p
}

// newProblemIn makes a problem within a request. An error that nobody foresaw is
// told to the log, and not to the caller.
func newProblemIn(ctx huma.Context, status int, detail string, errs ...error) huma.StatusError {
	if status < http.StatusInternalServerError {
		return newProblem(status, detail, errs...)
	}
	err := errors.Join(errs...)
	if detail == "cannot read request body" {
		if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return problem(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit))
		}
		return problem(http.StatusBadRequest, "the body broke off")
	}
	var request context.Context
	if ctx != nil {
		request = ctx.Context()
	}
	p := unforeseen(request, err)
	for k, v := range p.headers {
		ctx.SetHeader(k, v[0])
	}
	return p
}

// Fail answers an error that a handler met which writes its answer by itself, as it
// would be answered for any other: nothing has been written yet.
func Fail(w http.ResponseWriter, r *http.Request, err error) {
	p, is := errors.AsType[*Problem](err)
	if !is {
		p = unforeseen(r.Context(), err)
	}
	p.write(w)
}

// unforeseen answers an error that no handler made into an answer.
func unforeseen(ctx context.Context, err error) *Problem {
	if ctx == nil {
		ctx = context.Background()
	}
	p := problem(http.StatusInternalServerError, "something went wrong on this server; its log says what")
	switch {
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return problem(statusGone, "the client has gone") // nobody reads it
	case errors.Is(err, context.DeadlineExceeded):
		p = retry(http.StatusServiceUnavailable, time.Second, "it took too long; the server is busy")
	case errors.Is(err, sqldb.ErrFull):
		p = retry(http.StatusServiceUnavailable, 10*time.Second, "the server's disk is full")
	case errors.Is(err, sqldb.ErrClosed):
		p = retry(http.StatusServiceUnavailable, time.Second, "the server is stopping")
	}
	log(ctx).LogAttrs(ctx, slog.LevelError, "a request was not done", slog.Int("status", p.Status), slog.String("correlation", Correlation(ctx)), slog.Any("error", err))
	return p
}

// statusGone is what nginx calls a client that did not wait. It is never read.
const statusGone = 499

// write answers p.
func (p *Problem) write(w http.ResponseWriter) {
	h := w.Header()
	for k, v := range p.headers {
		h[k] = v
	}
	var b bytes.Buffer
	_ = encode(&b, p) // texts and numbers: it cannot fail
	h.Set("Content-Type", mediaProblem)
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(p.Status)
	_, _ = w.Write(b.Bytes()) // a client that has gone is told nothing
}
