package console

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/httpapi"
)

// Bounds of one stream.
const (
	maxPatterns = 16
	maxPending  = 32               // events that wait for a slow reader
	slowTime    = 20 * time.Second // a reader that takes nothing for so long is cut
	firstTime   = 100 * time.Millisecond
	longest     = 24 * time.Hour // of a stream; its reader comes again
	retryMS     = 1000           // what a browser waits before it comes again
)

func (r *Room) routeEvents(api huma.API) {
	stream := &huma.Schema{Type: huma.TypeString, Description: "id, event and data lines; data is a CloudEvent in JSON"}
	huma.Register(api, huma.Operation{
		OperationID: "stream-events", Method: http.MethodGet, Path: "/events", Tags: []string{"events"},
		Summary: "The tenant's events, as they happen",
		Description: "Server-sent events; with Accept: application/x-ndjson one CloudEvent a line. A stream that was cut goes on " +
			"where it was with Last-Event-ID; with one of a store that was lost since, at the beginning of what is stored now. " +
			"Each event may come more than once: its id says so. The kinds of events are described at /asyncapi.yaml.",
		Responses: map[string]*huma.Response{"200": {Description: "The events", Content: map[string]*huma.MediaType{
			mediaSSE: {Schema: stream}, mediaLines: {Schema: stream},
		}}},
	}, r.events)
}

const (
	mediaSSE   = "text/event-stream"
	mediaLines = "application/x-ndjson"
)

type eventsIn struct {
	Subjects []string `query:"subject,explode" maxItems:"16" doc:"Only these: ci.job.completed, ci.job.* or ci.job.>; several may be given" example:"ci.job.>"`
	Follow   bool     `query:"follow" default:"true" doc:"Go on with what happens; else end after what is stored"`
	Limit    int      `query:"limit" minimum:"0" maximum:"100000" doc:"End after so many events; 0 is no limit"`
	After    string   `query:"after" maxLength:"128" doc:"As Last-Event-ID, for who cannot send headers; 0 is the beginning"`
	LastID   string   `header:"Last-Event-ID" maxLength:"128" doc:"Go on after this event"`
	Accept   string   `header:"Accept"`
}

// An item is an event on its way to a reader.
type item struct {
	id    string
	event event.Event
}

func (r *Room) events(ctx context.Context, in *eventsIn) (*huma.StreamResponse, error) {
	if r.cfg.Tail == nil {
		return nil, httpapi.NotReady("this server keeps no events")
	}
	var faults []spec.Fault
	if len(in.Subjects) > maxPatterns {
		return nil, httpapi.Invalid("query", []spec.Fault{{Path: "subject", Message: fmt.Sprintf("want at most %d", maxPatterns)}})
	}
	for i, p := range in.Subjects {
		if !known(p) {
			faults = append(faults, spec.Fault{Path: fmt.Sprintf("subject[%d]", i), Message: "no event has such a subject; /asyncapi.yaml lists them, * stands for one word of a subject and > for all that follow"})
		}
	}
	if faults != nil {
		return nil, httpapi.Invalid("query", faults)
	}
	who := authz.From(ctx)
	if err := r.gate.Pass(ctx, "Event::read", authz.Resource{Type: "Event", ID: "*", Tenant: who.Tenant}); err != nil {
		return nil, err
	}
	if !r.streams.enter(who.Tenant, r.cfg.MaxStreams) {
		return nil, httpapi.TooMany(5*time.Second, "too many event streams are open")
	}
	life := longest
	if !who.Expires.IsZero() { // a stream does not outlive the token that opened it
		life = min(life, who.Expires.Sub(r.cfg.Now()))
	}
	ctx, cancel := context.WithTimeout(ctx, life)
	s := &stream{room: r, items: make(chan item, maxPending), ended: make(chan error, 1), limit: in.Limit, from: "header.Last-Event-ID"}
	if in.LastID == "" {
		s.from = "query.after"
	}
	s.lines = strings.Contains(in.Accept, mediaLines) && !strings.Contains(in.Accept, mediaSSE)
	closed := func() { cancel(); r.streams.leave(who.Tenant) }
	go s.read(ctx, who.Tenant, in)
	if err := s.begin(ctx); err != nil {
		closed()
		return nil, err
	}
	return &huma.StreamResponse{Body: func(c huma.Context) {
		defer closed()
		_, w := humago.Unwrap(c)
		s.serve(ctx, w)
	}}, nil
}

// streams counts who is listening. A tenant has at most a quarter of all streams.
type streams struct {
	mu  sync.Mutex
	all int
	of  map[ident.Tenant]int
}

func (s *streams) enter(t ident.Tenant, most int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= most || s.of[t] >= max(1, most/4) {
		return false
	}
	s.all++
	s.of[t]++
	return true
}

func (s *streams) leave(t ident.Tenant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.of[t]--; s.of[t] == 0 {
		delete(s.of, t)
	}
}

// known says whether a pattern can match any event.
func known(pattern string) bool {
	if len(pattern) > 128 {
		return false
	}
	for _, e := range event.Catalog() {
		if bus.Matches(pattern, e.Subject) {
			return true
		}
	}
	return false
}

// A stream is one reader's.
type stream struct {
	room  *Room
	lines bool // one event a line, instead of server-sent events
	limit int
	from  string // what named the place where it begins
	items chan item
	ended chan error // why the tail ended; nil: all is told
	first *item      // came before the answer began
}

var errEnough = errors.New("as many as were asked for")

// read brings the tenant's events, until ctx ends or there are enough.
func (s *stream) read(ctx context.Context, t ident.Tenant, in *eventsIn) {
	after := first(in.LastID, in.After)
	if after == "" && !in.Follow {
		after = "0"
	}
	n := 0
	err := s.room.cfg.Tail.Tail(ctx, in.Subjects, after, in.Follow, func(id string, e event.Event) error {
		if e.Tenant != t {
			return nil
		}
		select {
		case s.items <- item{id, e}:
		case <-ctx.Done():
			return ctx.Err()
		}
		if n++; n == s.limit {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	s.ended <- err
}

// begin waits a moment for the tail to fail: then there is still time to say so.
func (s *stream) begin(ctx context.Context) error {
	t := time.NewTimer(firstTime)
	defer t.Stop()
	select {
	case it := <-s.items:
		s.first = &it
	case err := <-s.ended:
		s.ended <- err // serve is told, too
		if errors.Is(err, bus.ErrPlace) {
			return httpapi.Invalid(s.from, []spec.Fault{{Message: "no event stream gave it: leave it out to begin now, or give 0 to begin with all that is stored"}})
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("console: %w", err)
		}
	case <-t.C:
	case <-ctx.Done():
	}
	return nil
}

// serve writes events until there are no more, the reader has gone, or it is too
// slow: then it is cut, and may come again and go on where it was.
func (s *stream) serve(ctx context.Context, w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", mediaSSE)
	if s.lines {
		h.Set("Content-Type", mediaLines)
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // proxies must not hold events back
	clock := http.NewResponseController(w)
	out := bufio.NewWriterSize(w, 32<<10)
	flush := func() error {
		cut := time.AfterFunc(slowTime, func() { _ = clock.SetWriteDeadline(time.Now()) }) // not every writer has one: tests'
		defer cut.Stop()
		if err := out.Flush(); err != nil {
			return err
		}
		return clock.Flush()
	}
	beat := time.NewTicker(s.room.cfg.Heartbeat)
	defer beat.Stop()
	w.WriteHeader(http.StatusOK)
	s.text(out, fmt.Sprintf("retry: %d\n\n", retryMS))
	if s.first != nil && s.write(out, *s.first) != nil {
		return
	}
	for {
		if err := s.drain(out); err != nil || flush() != nil {
			return
		}
		select {
		case it := <-s.items:
			if s.write(out, it) != nil {
				return
			}
		case err := <-s.ended:
			_ = s.drain(out)
			if err != nil && ctx.Err() == nil {
				s.room.cfg.Log.Warn("an event stream broke off", "error", err)
			}
			_ = flush() // a reader that has gone is told nothing
			return
		case <-beat.C:
			s.text(out, ": still here\n\n")
		case <-ctx.Done():
			return
		}
	}
}

// drain writes what waits.
func (s *stream) drain(out *bufio.Writer) error {
	for range maxPending {
		select {
		case it := <-s.items:
			if err := s.write(out, it); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

// text writes what is no event, where there is room for it.
func (s *stream) text(out *bufio.Writer, text string) {
	if !s.lines {
		_, _ = out.WriteString(text) // a failure stays in out
	}
}

func (s *stream) write(out *bufio.Writer, it item) error {
	body, err := json.Marshal(it.event)
	if err != nil {
		return err
	}
	if s.lines {
		_, _ = out.Write(body)
		return out.WriteByte('\n')
	}
	_, err = fmt.Fprintf(out, "id: %s\nevent: %s\ndata: %s\n\n", it.id, it.event.Type, body)
	return err
}
