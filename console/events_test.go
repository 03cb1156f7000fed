package console

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/bus"
)

// tape is a stream of events in memory; the place after its nth event is n.
type tape struct {
	mu     sync.Mutex
	events []event.Event
	more   chan struct{} // closed when there are more
	open   int           // tails that run
	broken error
}

func newTape() *tape { return &tape{more: make(chan struct{})} }

func (t *tape) add(events ...event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = append(t.events, events...)
	close(t.more)
	t.more = make(chan struct{})
}

func (t *tape) tails() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open
}

func (t *tape) Tail(ctx context.Context, subjects []string, after string, follow bool, yield func(string, event.Event) error) error {
	t.mu.Lock()
	t.open++
	at, err := strconv.Atoi(after)
	if after == "" {
		at, err = len(t.events), nil
	}
	broken := t.broken
	t.mu.Unlock()
	defer func() { t.mu.Lock(); t.open--; t.mu.Unlock() }()
	if err != nil {
		return bus.ErrPlace
	}
	if broken != nil {
		return broken
	}
	for {
		t.mu.Lock()
		rest, more := t.events[min(at, len(t.events)):], t.more
		t.mu.Unlock()
		for _, e := range rest {
			at++
			hit := len(subjects) == 0
			for _, s := range subjects {
				hit = hit || bus.Matches(s, e.Subject)
			}
			if !hit {
				continue
			}
			if err := yield(strconv.Itoa(at), e); err != nil {
				return err
			}
		}
		if len(rest) > 0 {
			continue
		}
		if !follow {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A reader is a client of GET /events.
type reader struct {
	t    testing.TB
	resp *http.Response
	in   *bufio.Reader
}

func (w *world) listen(server *httptest.Server, query string, head map[string]string) *reader {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	w.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", server.URL+"/events"+query, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Tenant", "acme")
	for k, v := range head {
		req.Header.Set(k, v)
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { resp.Body.Close() })
	return &reader{w.t, resp, bufio.NewReader(resp.Body)}
}

// next returns the next event, and false at the end of the stream.
func (r *reader) next() (id, typ string, e event.Event, ok bool) {
	r.t.Helper()
	for {
		line, err := r.in.ReadString('\n')
		if err != nil {
			return "", "", e, false
		}
		line = strings.TrimSuffix(line, "\n")
		switch name, value, _ := strings.Cut(line, ": "); name {
		case "id":
			id = value
		case "event":
			typ = value
		case "data":
			if err := json.Unmarshal([]byte(value), &e); err != nil {
				r.t.Fatal(err)
			}
		default:
			if line == "" && id != "" {
				return id, typ, e, true
			}
		}
	}
}

// jobs reads the keys of the next n events.
func (r *reader) jobs(n int) string {
	r.t.Helper()
	var out []string
	for range n {
		_, _, e, ok := r.next()
		if !ok {
			out = append(out, "END")
			break
		}
		out = append(out, e.Key)
	}
	return strings.Join(out, " ")
}

func openStream(t testing.TB, change func(*Config)) (*world, *tape, *httptest.Server) {
	tape := newTape()
	w := open(t, func(c *Config) {
		c.Tail = tape
		if change != nil {
			change(c)
		}
	})
	s := httptest.NewServer(w.serve())
	t.Cleanup(s.Close)
	return w, tape, s
}

// until waits for what another goroutine brings about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestEventsFollow(t *testing.T) {
	w, tape, s := openStream(t, nil)
	tape.add(w.requested("before", 1))
	r := w.listen(s, "", nil)
	if r.resp.StatusCode != 200 || r.resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", r.resp.StatusCode, r.resp.Header)
	}
	foreign := w.requested("foreign", 1)
	foreign.Tenant = "other"
	want := w.requested("j1", 1)
	tape.add(foreign, want, w.done("j1", 1))
	id, typ, e, ok := r.next()
	if !ok || id != "3" || typ != "JobRequested" || e.ID != want.ID || e.Subject != "ci.job.requested" || string(e.Data) != string(want.Data) || e.SpecVersion != "1.0" {
		t.Errorf("%v %s %s %+v", ok, id, typ, e)
	}
	if id, typ, _, _ := r.next(); id != "4" || typ != "JobCompleted" {
		t.Errorf("%s %s", id, typ)
	}

	// It goes on where it was, even from before.
	if got := w.listen(s, "", map[string]string{"Last-Event-ID": "3"}).jobs(1); got != "j1" {
		t.Errorf("resumed: %q", got)
	}
	if got := w.listen(s, "?after=0", nil).jobs(3); got != "before j1 j1" {
		t.Errorf("from the beginning: %q", got)
	}
	r.resp.Body.Close()
	s.CloseClientConnections()
	until(t, "tails go on without readers", func() bool { return tape.tails() == 0 })
	until(t, "streams are still counted", func() bool {
		w.streams.mu.Lock()
		defer w.streams.mu.Unlock()
		return w.streams.all == 0 && len(w.streams.of) == 0
	})
}

func TestEventsStored(t *testing.T) {
	w, tape, s := openStream(t, nil)
	tape.add(w.requested("a", 1), w.started("a", 1), w.assigned("b", 1), w.done("a", 1))
	for query, want := range map[string]string{
		"?follow=false": "a a b a END", "?follow=false&limit=2": "a a END", "?follow=false&after=2": "b a END",
		"?follow=false&subject=ci.job.>": "a a a END", "?follow=false&subject=ci.assignment.*&subject=ci.job.completed": "b a END",
		"?follow=false&after=99": "END", "?limit=1&after=0": "a END",
	} {
		if got := w.listen(s, query, nil).jobs(10); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	r := w.listen(s, "?follow=false", map[string]string{"Accept": "application/x-ndjson"})
	body, err := io.ReadAll(r.in)
	if err != nil || r.resp.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("%v %v", err, r.resp.Header)
	}
	lines := strings.Split(strings.TrimSpace(string(body)), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines: %s", len(lines), body)
	}
	for _, line := range lines {
		if _, err := event.Decode([]byte(line)); err != nil {
			t.Errorf("%v in %s", err, line)
		}
	}
}

// TestEventsMany has more events stored than wait at any moment.
func TestEventsMany(t *testing.T) {
	w, tape, s := openStream(t, nil)
	const n = 5000
	for i := range n {
		tape.add(w.requested(fmt.Sprint("j", i), 1))
	}
	r := w.listen(s, "?follow=false", nil)
	for i := range n {
		id, _, e, ok := r.next()
		if !ok || id != strconv.Itoa(i+1) || e.Key != fmt.Sprint("j", i) {
			t.Fatalf("%d: %v %s %s", i, ok, id, e.Key)
		}
	}
	if _, _, _, ok := r.next(); ok {
		t.Error("one too many")
	}
}

func TestEventsRefuse(t *testing.T) {
	w, tape, s := openStream(t, nil)
	for query, want := range map[string]int{
		"?subject=ci.jobs.>": 422, "?subject=>.ci": 422, "?subject=" + strings.Repeat("x", 200): 422,
		"?after=nowhere": 422, "?limit=-1": 422, "?follow=perhaps": 422, "?" + strings.Repeat("subject=ci.>&", 17): 422,
	} {
		if r := w.listen(s, query, nil); r.resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", query, r.resp.StatusCode, want)
		}
	}
	tape.broken = errors.New("no")
	if r := w.listen(s, "", nil); r.resp.StatusCode != 500 {
		t.Errorf("broken: %d", r.resp.StatusCode)
	}
	tape.broken = nil
	w.judge.no = "no"
	if r := w.listen(s, "", nil); r.resp.StatusCode != 403 {
		t.Errorf("denied: %d", r.resp.StatusCode)
	}
}

func TestEventsAreBounded(t *testing.T) {
	w, tape, s := openStream(t, func(c *Config) { c.MaxStreams = 8 })
	var open []*reader
	for range 2 {
		open = append(open, w.listen(s, "", nil))
	}
	if r := w.listen(s, "", nil); r.resp.StatusCode != 429 || r.resp.Header.Get("Retry-After") == "" {
		t.Errorf("a third of one tenant: %d", r.resp.StatusCode)
	}
	for i := range 6 {
		r := w.listen(s, "", map[string]string{"Tenant": fmt.Sprint("t", i)})
		if r.resp.StatusCode != 200 {
			t.Errorf("another tenant's: %d", r.resp.StatusCode)
		}
		open = append(open, r)
	}
	if r := w.listen(s, "", map[string]string{"Tenant": "last"}); r.resp.StatusCode != 429 {
		t.Errorf("a ninth: %d", r.resp.StatusCode)
	}
	for _, r := range open {
		r.resp.Body.Close()
	}
	s.CloseClientConnections()
	until(t, "tails go on without readers", func() bool { return tape.tails() == 0 })
}

func TestEventsBeatAndExpire(t *testing.T) {
	w, _, s := openStream(t, func(c *Config) { c.Heartbeat = 5 * time.Millisecond })
	r := w.listen(s, "", map[string]string{"Expires-In": "200ms"})
	body, err := io.ReadAll(r.in) // ends with the token
	if err != nil || strings.Count(string(body), ": still here\n\n") < 2 || !strings.HasPrefix(string(body), "retry: ") {
		t.Errorf("%v %q", err, body)
	}
}

// TestSlowReaderHoldsUpNobody has a reader that takes nothing, beside one that does.
func TestSlowReaderHoldsUpNobody(t *testing.T) {
	w, tape, s := openStream(t, nil)
	slow := w.listen(s, "", nil)
	quick := w.listen(s, "", nil)
	big := event.JobFailed.Event(event.About{Tenant: "acme", Key: "big"}, event.JobFault{Job: "big", Message: strings.Repeat("x", 100_000)})
	const n = 300
	ended := make(chan string, 1)
	go func() { ended <- quick.jobs(n) }()
	for range n {
		tape.add(big)
	}
	if got := <-ended; strings.Contains(got, "END") || strings.Count(got, "big") != n {
		t.Errorf("the quick one had %d", strings.Count(got, "big"))
	}
	if got := slow.jobs(n); strings.Count(got, "big") != n {
		t.Errorf("the slow one had %d", strings.Count(got, "big"))
	}
}

func TestNoTail(t *testing.T) {
	w := open(t, nil)
	s := httptest.NewServer(w.serve())
	defer s.Close()
	if r := w.listen(s, "", nil); r.resp.StatusCode != 503 {
		t.Errorf("%d", r.resp.StatusCode)
	}
}
