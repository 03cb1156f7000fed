package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/observe"
)

// judge permits all but what no says.
type judge struct{ no string }

func (j *judge) Decide(_ context.Context, q authz.Question) authz.Answer {
	about := event.About{Tenant: q.Principal.Tenant, Key: q.Action}
	if j.no != "" {
		return authz.Answer{Reason: j.no, Event: event.AuthorizationDenied.Event(about, event.Denial{Action: q.Action, Reason: j.no})}
	}
	return authz.Answer{Permit: true, Event: event.AuthGranted.Event(about, event.Grant{Scope: q.Action})}
}

// world is a room with what is around it.
type world struct {
	*Room
	t     testing.TB
	cfg   Config
	judge *judge

	mu  sync.Mutex
	now time.Time
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	w.now = w.now.Add(d)
	w.mu.Unlock()
}

func open(t testing.TB, change func(*Config)) *world {
	w := &world{t: t, judge: &judge{}, now: time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)}
	o := observe.New(observe.Config{Now: w.clock, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(o.Close)
	w.cfg = Config{Dir: t.TempDir(), Now: w.clock, IDs: ident.NewSource(w.clock), Log: slog.New(slog.DiscardHandler), Decider: w.judge, Observe: o}
	if change != nil {
		change(&w.cfg)
	}
	w.open()
	t.Cleanup(func() { w.Close() })
	return w
}

func (w *world) open() {
	w.t.Helper()
	r, err := Open(w.t.Context(), w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Room = r
}

// said returns what the room told of a kind.
func said[T any](w *world, k event.Kind[T]) (out []T) {
	w.t.Helper()
	rows, err := w.DB().Outbox(w.t.Context(), 0, 100_000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range rows {
		if r.Event.Subject == k.Subject {
			d, err := k.Read(r.Event)
			if err != nil {
				w.t.Fatal(err)
			}
			out = append(out, d)
		}
	}
	return out
}

func (w *world) call(tenant, path, accept string, out any) (int, *httptest.ResponseRecorder) {
	w.t.Helper()
	mux := http.NewServeMux()
	w.Routes(httpapi.New(mux, "test"))
	req := httptest.NewRequest("GET", path, nil)
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	who := authz.Principal{Sub: "ann", Scopes: []string{"*"}, Tenant: ident.Tenant(tenant)}
	rec := httptest.NewRecorder()
	mux.ServeHTTP(rec, req.WithContext(authz.With(req.Context(), who)))
	if out != nil && rec.Code == 200 {
		if err := json.Unmarshal(rec.Body.Bytes(), out); err != nil {
			w.t.Fatalf("%v in %s", err, rec.Body)
		}
	}
	return rec.Code, rec
}

func (w *world) flush() {
	w.t.Helper()
	if err := w.cfg.Observe.Flush(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

type listing struct {
	Items []spanBody `json:"items"`
	Next  string     `json:"next_cursor"`
}

func names(l listing) string {
	var out []string
	for _, s := range l.Items {
		out = append(out, s.Name)
	}
	return strings.Join(out, " ")
}

func TestTraces(t *testing.T) {
	w := open(t, nil)
	const run = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	span := func(tenant ident.Tenant, trace string, job ident.Job, name string, err error) {
		w.pass(time.Millisecond)
		_, end := observe.Start(observe.Of(observe.FromTraceParent(t.Context(), trace), tenant, job), "execution", name, map[string]string{"k": "v"})
		w.pass(2 * time.Millisecond)
		end(err)
	}
	span("acme", run, "", "accept", nil)
	span("acme", run, "j1", "a", nil)
	w.flush() // what follows comes in another chunk
	span("acme", run, "j2", "b", errors.New("oops"))
	span("acme", run, "j1", "c", nil)
	span("other", run, "j1", "foreign", nil)
	span("", "", "", "nobody's", nil)
	span("acme", strings.Replace(run, "0af", "1af", 1), "", "elsewhere", nil)
	w.flush()

	var got listing
	if code, _ := w.call("acme", "/traces?job_id=j1", "", &got); code != 200 || names(got) != "accept a c" || got.Next != "" {
		t.Errorf("%d %q", code, names(got))
	}
	if s := got.Items[1]; s.TraceID != run[3:35] || s.Parent != run[36:52] || s.DurationMS != 2 || s.Attributes["k"] != "v" || s.Attributes["job_id"] != "j1" || s.Service != "execution" {
		t.Errorf("%+v", s)
	}
	for path, want := range map[string]string{
		"/traces?job_id=j2":                                     "accept b",
		"/traces?trace_id=" + run[3:35]:                         "accept a b c",
		"/traces?job_id=j1&trace_id=" + run[3:35]:               "accept a c",
		"/traces?job_id=j1&trace_id=" + strings.Repeat("a", 32): "",
		"/traces?job_id=none":                                   "",
		"/traces":                                               "elsewhere c b a accept",
	} {
		got = listing{}
		if code, _ := w.call("acme", path, "", &got); code != 200 || names(got) != want {
			t.Errorf("%s: %d %q, want %q", path, code, names(got), want)
		}
	}
	if _, _ = w.call("acme", "/traces?job_id=j2", "", &got); got.Items[1].Error != "oops" {
		t.Errorf("%+v", got.Items[1])
	}
	if _, _ = w.call("other", "/traces?job_id=j1", "", &got); names(got) != "foreign" {
		t.Errorf("another tenant sees %q", names(got))
	}
	if _, _ = w.call("third", "/traces?job_id=j1", "", &got); names(got) != "" {
		t.Errorf("a third tenant sees %q", names(got))
	}

	// Page by page comes the same.
	for _, of := range []string{"job_id=j1", "trace_id=" + run[3:35], ""} {
		var whole listing
		w.call("acme", "/traces?"+of, "", &whole)
		var all []string
		for path := "/traces?limit=1&" + of; ; {
			got = listing{}
			w.call("acme", path, "", &got)
			all = append(all, names(got))
			if got.Next == "" || len(all) > 10 {
				break
			}
			path = "/traces?limit=1&" + of + "&cursor=" + got.Next
		}
		slices.Sort(all)
		want := strings.Fields(names(whole))
		slices.Sort(want)
		if !slices.Equal(all, want) {
			t.Errorf("%q: pages %q, whole %q", of, all, want)
		}
	}

	// Everyone is told of one's own.
	n := map[string]int{}
	for _, tr := range said(w, event.TraceSpans) {
		if tr.Context != tr.Spans[0].TraceContext {
			t.Errorf("%+v", tr)
		}
		for _, s := range tr.Spans {
			n[s.Attributes["tenant"]]++
		}
	}
	if n["acme"] != 5 || n["other"] != 1 || len(n) != 2 {
		t.Errorf("told of %v", n)
	}
}

func TestRefuses(t *testing.T) {
	w := open(t, nil)
	for path, want := range map[string]int{
		"/traces?trace_id=x": 422, "/traces?limit=0": 422, "/traces?cursor=x": 422, "/traces?cursor=1.1x": 422, "/traces?job_id=a/b": 404,
		"/metrics?since=yesterday": 422, "/metrics?since=-5m": 200,
	} {
		if code, rec := w.call("acme", path, "", nil); code != want {
			t.Errorf("%s: %d, want %d: %.200s", path, code, want, rec.Body)
		}
	}
	w.judge.no = "no"
	for _, path := range []string{"/traces", "/metrics"} {
		if code, _ := w.call("acme", path, "", nil); code != 403 {
			t.Errorf("%s denied: %d", path, code)
		}
	}
	if d := said(w, event.AuthorizationDenied); len(d) != 2 || d[0].Action != "Telemetry::read" {
		t.Errorf("%+v", d)
	}
}

func (w *world) spansKept() (n int) {
	w.t.Helper()
	if err := w.DB().QueryRow(w.t.Context(), `SELECT COALESCE(SUM(n), 0) FROM chunk`).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

func some(n int, trace string) (out []event.Span) {
	for i := range n {
		out = append(out, event.Span{
			TraceContext: event.TraceContext{TraceID: trace, SpanID: fmt.Sprintf("%016x", i+1)}, Name: "n", Service: "s",
			Attributes: map[string]string{"tenant": "acme", "job_id": fmt.Sprint("j", i%7)},
		})
	}
	return out
}

func TestSpansAreBounded(t *testing.T) {
	w := open(t, func(c *Config) { c.MaxSpans, c.KeepFor = 1000, time.Hour })
	for i := range 30 {
		if err := w.store(t.Context(), some(100, fmt.Sprintf("%032x", i))); err != nil {
			t.Fatal(err)
		}
		if n := w.spansKept(); n > 1000 || i > 12 && n < 900 {
			t.Fatalf("%d spans are kept", n)
		}
	}
	var got listing
	if w.call("acme", "/traces?trace_id="+fmt.Sprintf("%032x", 29), "", &got); len(got.Items) != 100 {
		t.Errorf("%d of the latest", len(got.Items))
	}
	if err := w.Close(); err != nil { // the count is found again
		t.Fatal(err)
	}
	w.open()
	if w.kept != w.spansKept() || w.kept == 0 {
		t.Errorf("%d counted", w.kept)
	}
	w.pass(time.Hour)
	if err := w.store(t.Context(), some(1, strings.Repeat("f", 32))); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Second)
	if err := w.shrink(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.spansKept(); n != 1 || w.kept != 1 {
		t.Errorf("%d spans are kept, %d counted", n, w.kept)
	}
	if told := said(w, event.TraceSpans); len(told) != 31 {
		t.Errorf("%d TraceSpans", len(told))
	}
	if err := w.store(t.Context(), some(maxTold+1, strings.Repeat("e", 32))); err != nil {
		t.Fatal(err)
	}
	if told := said(w, event.TraceSpans); len(told) != 33 {
		t.Errorf("%d TraceSpans: a batch is too large for one", len(told))
	}
}

func TestCloseKeepsTheLastSpans(t *testing.T) {
	w := open(t, nil)
	_, end := observe.Start(observe.Of(t.Context(), "acme", "j1"), "s", "last", nil)
	end(nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	var got listing
	if w.call("acme", "/traces?job_id=j1", "", &got); names(got) != "last" {
		t.Errorf("%q", names(got))
	}
}

func TestAlerts(t *testing.T) {
	w := open(t, nil)
	bad := event.JobStarted.Event(event.About{Tenant: "acme", Key: "j1", Correlation: "cor"}, event.JobStart{Job: "j1"})
	w.Alert(bad, "execution", errors.New("it would not"))
	got := said(w, event.AlertRaised)
	if len(got) != 1 {
		t.Fatalf("%d alerts", len(got))
	}
	if a := got[0]; a.Severity != Critical || a.Tags["event_id"] != string(bad.ID) || a.Tags["room"] != "execution" || !strings.Contains(a.Message, "it would not") || a.Alert == "" {
		t.Errorf("%+v", a)
	}
	w.Alert(event.AlertRaised.Event(event.About{Tenant: "acme", Key: "x"}, event.Alert{}), "console", errors.New("no"))
	if n := len(said(w, event.AlertRaised)); n != 1 {
		t.Errorf("an alert about an alert: %d", n)
	}
	for range 100 {
		if err := w.Raise(t.Context(), "loud", strings.Repeat("é", 1000), map[string]string{"k": strings.Repeat("v", 1000)}); err != nil {
			t.Fatal(err)
		}
	}
	got = said(w, event.AlertRaised)
	if len(got) != alertBurst {
		t.Errorf("%d alerts of a flood", len(got))
	}
	if a := got[len(got)-1]; a.Severity != Critical || len(a.Message) > maxMessage || len(a.Tags["k"]) != 512 {
		t.Errorf("%+v", a)
	}
	w.pass(2 * alertEvery)
	for range 3 {
		if err := w.Raise(t.Context(), Info, "again", nil); err != nil {
			t.Fatal(err)
		}
	}
	more := said(w, event.AlertRaised)[len(got):]
	if len(more) != 2 || !strings.HasPrefix(more[0].Message, "again (and ") || more[1].Message != "again" {
		t.Errorf("%+v", more)
	}
	if err := w.Raise(t.Context(), Info, "x", manyTags()); err == nil {
		w.pass(time.Hour)
		if err := w.Raise(t.Context(), Info, "x", manyTags()); err == nil {
			t.Error("too many tags")
		}
	}
}

func manyTags() map[string]string {
	out := map[string]string{}
	for i := range maxAlertTags + 1 {
		out[fmt.Sprint(i)] = "v"
	}
	return out
}

// TestNumbersAreShownAsNumbers shows the attributes of a span that are numbers, and
// those that only look like it.
func TestNumbersAreShownAsNumbers(t *testing.T) {
	s := show(event.Span{Attributes: map[string]string{"duration": "12", "value": "0.5", "job_id": "7"}})
	if s.Attributes["duration"] != 12.0 || s.Attributes["value"] != 0.5 || s.Attributes["job_id"] != "7" {
		t.Errorf("%v", s.Attributes)
	}
	if s := show(event.Span{Attributes: map[string]string{"value": "+Inf"}}); s.Attributes["value"] != "+Inf" {
		t.Errorf("%v", s.Attributes)
	}
}
