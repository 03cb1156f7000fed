package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
)

// sink keeps what it is given.
type sink struct {
	mu    sync.Mutex
	spans []event.Span
}

func (s *sink) take(spans []event.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spans = append(s.spans, spans...)
}

func (s *sink) all() []event.Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.spans)
}

func open(t testing.TB) (*Observe, *sink) {
	s := &sink{}
	o := New(Config{Sink: s.take, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(o.Close)
	return o, s
}

func flush(t testing.TB, o *Observe) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := o.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestContractSpans(t *testing.T) {
	o, s := open(t)
	ctx := FromTraceParent(context.Background(), parent)
	begin := map[string]func(context.Context) (context.Context, func(error)){
		SpanCreateJob: func(c context.Context) (context.Context, func(error)) {
			return CreateJob(c, "acme", "job_1", "hash", "cor")
		},
		SpanScheduleJob: func(c context.Context) (context.Context, func(error)) {
			c, end := ScheduleJob(c, "acme", "job_1", "", "spread")
			Set(c, "node_id", "n1")
			return c, end
		},
		SpanCreateWorker: func(c context.Context) (context.Context, func(error)) {
			return CreateWorker(c, "acme", "job_1", "process", "img")
		},
		SpanRunStep: func(c context.Context) (context.Context, func(error)) {
			return RunStep(c, "acme", "job_1", "exe_1", "stp_1")
		},
		SpanEmitMetric: func(c context.Context) (context.Context, func(error)) {
			return EmitMetric(c, "acme", "fragua_jobs", 1.5, map[string]string{"state": "RUNNING"})
		},
		SpanAuthorize: func(c context.Context) (context.Context, func(error)) {
			return Authorize(c, "acme", "ann", "Job::job_1", "Job::read")
		},
	}
	// The blueprint's table 16; correlation_id is its correlation.
	want := map[string]struct {
		service string
		attrs   []string
	}{
		SpanCreateJob:    {"orchestration", []string{"tenant", "spec_hash", "correlation_id"}},
		SpanScheduleJob:  {"orchestration", []string{"job_id", "node_id", "policy"}},
		SpanCreateWorker: {"worker", []string{"provider_id", "runtime_spec"}},
		SpanRunStep:      {"execution", []string{"exec_id", "step_id", "duration"}},
		SpanEmitMetric:   {"telemetry", []string{"metric_name", "value", "tags"}},
		SpanAuthorize:    {"security", []string{"principal", "resource", "action"}},
	}
	for name, f := range begin {
		c, end := f(ctx)
		if tp := TraceParent(c); !strings.HasPrefix(tp, parent[:36]) || tp == parent {
			t.Errorf("%s: traceparent %s", name, tp)
		}
		end(nil)
	}
	flush(t, o)
	got := map[string]event.Span{}
	for _, sp := range s.all() {
		got[sp.Name] = sp
	}
	if len(got) != len(want) {
		t.Fatalf("%d spans, want %d", len(got), len(want))
	}
	for name, w := range want {
		sp := got[name]
		if sp.Service != w.service || sp.TraceID != parent[3:35] || sp.ParentSpanID != parent[36:52] || sp.Attributes["tenant"] != "acme" || sp.Error != "" || sp.End.Before(sp.Start) {
			t.Errorf("%s: %+v", name, sp)
		}
		for _, a := range w.attrs {
			if sp.Attributes[a] == "" {
				t.Errorf("%s has no %s", name, a)
			}
		}
	}
}

func TestSpansInherit(t *testing.T) {
	o, s := open(t)
	e := event.Event{Tenant: "acme", TraceParent: parent}
	ctx, end := RunStep(FromEvent(context.Background(), e), "", "job_1", "exe_1", "stp_1")
	inner, endInner := Start(ctx, "artifact", "fetch", map[string]string{"name": "app"})
	if TraceParent(inner) == TraceParent(ctx) {
		t.Error("the inner span is the outer one")
	}
	endInner(errors.New(strings.Repeat("é", 1000)))
	end(nil)
	began := time.Now().Add(-time.Minute)
	_, end = Start(Began(Of(ctx, "", "job_2"), began), "scheduling", "wait", nil)
	end(nil)
	flush(t, o)
	got := s.all()
	if len(got) != 3 {
		t.Fatalf("%d spans", len(got))
	}
	in, out, waited := got[0], got[1], got[2]
	if in.ParentSpanID != out.SpanID || in.Attributes["job_id"] != "job_1" || in.Attributes["tenant"] != "acme" || in.Attributes["name"] != "app" {
		t.Errorf("%+v", in)
	}
	if len(in.Error) > maxValue || !strings.HasPrefix(in.Error, "éé") || strings.ContainsRune(in.Error, '\uFFFD') {
		t.Errorf("the error: %q", in.Error)
	}
	if waited.Attributes["job_id"] != "job_2" || !waited.Start.Equal(began) || waited.End.Sub(waited.Start) < time.Minute {
		t.Errorf("%+v", waited)
	}
}

func TestTraceParentRefuses(t *testing.T) {
	for _, bad := range []string{
		"", "x", parent[:54], parent + "0", "ff" + parent[2:], strings.ToUpper(parent),
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
		"00-0af7651916cd43dd8448eb211c80319x-b7ad6b7169203331-01", strings.ReplaceAll(parent, "-", "_"),
	} {
		if got := TraceParent(FromTraceParent(context.Background(), bad)); got != "" {
			t.Errorf("%q became %q", bad, got)
		}
	}
	if got := TraceParent(FromTraceParent(context.Background(), parent)); got != parent {
		t.Errorf("%q", got)
	}
	if got := TraceParent(FromTraceParent(context.Background(), "01"+parent[2:]+"-later")); got != parent {
		t.Errorf("a later version: %q", got)
	}
}

func TestNobodyListens(t *testing.T) {
	var none *Observe
	none.SetSink(nil)
	none.Close()
	if err := none.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	m := none.Metrics()
	m.Request("GET", "/", 200, 1)
	m.Jobs("PENDING", 1)
	m.JobEnded("FAILED", 1)
	m.JobRetried()
	m.Placed(1)
	m.StepEnded("failed", 1)
	m.Workers(1)
	m.WorkerEnded("failed")
	m.WorkerMade("process", 1, nil)
	m.Committed("security", 1, 1)
	m.WatchQueue("q", func() int { return 1 })
	m.WatchOutbox("r", func() int { return 1 })
	m.Alert("info")
	m.SetAside("console")
	if all, err := m.Gatherer().Gather(); len(all) != 0 || err != nil {
		t.Error(all, err)
	}
	ctx, end := Start(t.Context(), "s", "n", nil)
	end(nil)
	if TraceParent(ctx) != "" {
		t.Error("a span without an Observe")
	}
}

// TestQueueIsBounded has more spans end than wait, while the sink is busy.
func TestQueueIsBounded(t *testing.T) {
	busy, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s := &sink{}
	o := New(Config{Sink: func(b []event.Span) {
		once.Do(func() { close(busy); <-free })
		s.take(b)
	}})
	defer o.Close()
	one := func() { _, end := Start(context.Background(), "s", "n", nil); end(nil) }
	one()
	<-busy
	for range maxQueue + 10 {
		one()
	}
	close(free)
	flush(t, o)
	if n := len(s.all()); n != maxQueue+1 {
		t.Errorf("%d spans kept", n)
	}
	if v := value(t, o, "fragua_spans_dropped_total", nil); v != 10 {
		t.Errorf("%v dropped", v)
	}
}

func TestBatchesComeByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		o := New(Config{})
		_, end := Start(t.Context(), "s", "n", nil)
		end(nil)
		time.Sleep(time.Second) // there is no sink: the span waits
		o.SetSink(s.take)
		time.Sleep(batchEvery + time.Millisecond)
		if len(s.all()) != 1 {
			t.Error("nothing came")
		}
		_, end = Start(t.Context(), "s", "n", nil)
		end(nil)
		o.Close()
		if len(s.all()) != 2 {
			t.Error("Close lost a span")
		}
	})
}

func value(t testing.TB, o *Observe, name string, labels map[string]string) float64 {
	t.Helper()
	all, err := o.Metrics().Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			fits := true
			for k, v := range labels {
				fits = fits && slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == k && l.GetValue() == v })
			}
			if fits {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return -1
}

func TestMiddleware(t *testing.T) {
	o, s := open(t)
	mux := http.NewServeMux()
	var inside string
	mux.HandleFunc("GET /jobs/{id}", func(w http.ResponseWriter, r *http.Request) {
		inside = r.Header.Get("Traceparent")
		if r.PathValue("id") == "boom" {
			panic(http.ErrAbortHandler)
		}
		if _, err := io.Copy(w, strings.NewReader("hello")); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(500)
		w.(http.Flusher).Flush()
	})
	who := authz.Principal{Sub: "ann", Tenant: "acme"}
	h := o.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // as the verifier of tokens does
		o.Route(mux).ServeHTTP(w, r.WithContext(authz.With(r.Context(), who)))
	}))
	call := func(method, path string) (code int) {
		defer func() { _ = recover() }()
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Traceparent", parent)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if r.Header.Get("Traceparent") != parent {
			t.Error("the caller's request has changed")
		}
		return rec.Code
	}
	if code := call("GET", "/jobs/1"); code != 200 {
		t.Errorf("%d", code)
	}
	mine := inside
	call("GET", "/jobs/boom")
	call("BREW", "/tea")
	call("GET", "/healthz")
	call("GET", "/events")
	flush(t, o)
	got := s.all()
	if len(got) != 4 {
		t.Fatalf("%d spans: %+v", len(got), got)
	}
	a := got[0]
	if a.Name != "GET /jobs/{id}" || a.Service != SpanServer || a.ParentSpanID != parent[36:52] || a.Attributes["tenant"] != "acme" || a.Attributes["http.response.status_code"] != "200" {
		t.Errorf("%+v", a)
	}
	if mine != "00-"+a.TraceID+"-"+a.SpanID+"-01" {
		t.Errorf("inside: %q", mine)
	}
	if got[2].Name != "OTHER" || got[2].Attributes["http.response.status_code"] != "404" || got[3].Error == "" {
		t.Errorf("%+v", got[2:])
	}
	for labels, want := range map[string]float64{"/jobs/{id}": 2, "/healthz": 1, "/events": 1} {
		if v := value(t, o, "fragua_http_requests_total", map[string]string{"route": labels}); v != want {
			t.Errorf("%s: %v requests", labels, v)
		}
	}
	if v := value(t, o, "fragua_http_request_duration_seconds", map[string]string{"route": "/events"}); v != -1 {
		t.Errorf("a stream was timed: %v", v)
	}
	if v := value(t, o, "fragua_http_requests_in_flight", nil); v != 0 {
		t.Errorf("%v in flight", v)
	}
}

func TestMetrics(t *testing.T) {
	o, _ := open(t)
	m := o.Metrics()
	m.Jobs("RUNNING", 3)
	m.JobEnded("FAILED", time.Second)
	m.JobRetried()
	m.Placed(time.Millisecond)
	m.StepEnded("completed", time.Second)
	m.Workers(2)
	m.WorkerEnded("terminated")
	m.WorkerMade("process", time.Second, errors.New("no"))
	m.Committed("security", 7, time.Millisecond)
	m.Alert("warning")
	m.SetAside("console")
	depth := 5
	m.WatchQueue("bus", func() int { return depth })
	m.WatchOutbox("worker", func() int { return 1 })
	m.WatchOutbox("worker", func() int { return 8 })
	for name, want := range map[string]float64{
		"fragua_jobs_ended_total": 1, "fragua_job_retries_total": 1, "fragua_scheduling_latency_seconds": 1, "fragua_job_duration_seconds": 1,
		"fragua_step_duration_seconds": 1, "fragua_workers": 2, "fragua_workers_ended_total": 1, "fragua_worker_start_seconds": 1,
		"fragua_db_commit_duration_seconds": 1, "fragua_db_commit_transactions": 1, "fragua_alerts_total": 1, "fragua_events_set_aside_total": 1,
		"fragua_queue_depth": 5, "fragua_outbox_depth": 8,
	} {
		if v := value(t, o, name, nil); v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	if v := value(t, o, "fragua_jobs", map[string]string{"state": "RUNNING"}); v != 3 {
		t.Errorf("%v running", v)
	}
}

func TestLogger(t *testing.T) {
	var b bytes.Buffer
	log := Logger(&b, slog.LevelInfo, true)
	ctx := FromEvent(context.Background(), event.Event{Tenant: "acme", TraceParent: parent})
	log.DebugContext(ctx, "not this")
	log.With("room", "x").InfoContext(ctx, "hello", Decided("Job::1", "Job::read", false), FieldError, errors.New("oops"))
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, &b)
	}
	for k, want := range map[string]string{"msg": "hello", "tenant": "acme", "trace_id": parent[3:35], "resource": "Job::1", "action": "Job::read", "decision": "deny", "error": "oops", "room": "x"} {
		if got[k] != want {
			t.Errorf("%s is %v, want %s", k, got[k], want)
		}
	}
	b.Reset()
	text := Logger(&b, slog.LevelDebug, false)
	text.InfoContext(authz.With(context.Background(), authz.Principal{Tenant: "t2"}), "hi")
	text.InfoContext(ctx, "own", "tenant", "mine", "trace_id", "x", Decided("a", "b", true))
	if s := b.String(); !strings.Contains(s, "tenant=t2") || !strings.Contains(s, "tenant=mine") || strings.Contains(s, "acme") || !strings.Contains(s, "decision=permit") {
		t.Error(s)
	}
}

func BenchmarkSpan(b *testing.B) {
	o, _ := open(b)
	o.SetSink(func([]event.Span) {})
	ctx := FromEvent(context.Background(), event.Event{Tenant: "acme", TraceParent: parent})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_, end := RunStep(ctx, "acme", "job_1", "exe_1", "stp_1")
		end(nil)
		if i%10_000 == 0 {
			flush(b, o)
		}
	}
}

func BenchmarkStart(b *testing.B) {
	o, _ := open(b)
	o.SetSink(func([]event.Span) {})
	ctx := FromEvent(context.Background(), event.Event{Tenant: "acme", TraceParent: parent})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_, end := Start(ctx, "artifact", "fetch", map[string]string{"name": "app", "version": "1"})
		end(nil)
		if i%10_000 == 0 {
			flush(b, o)
		}
	}
}

func ExampleStart() {
	o := New(Config{Sink: func(spans []event.Span) {
		for _, s := range spans {
			fmt.Println(s.Service, s.Name, s.Attributes)
		}
	}})
	_, end := Start(context.Background(), "artifact", "fetch", map[string]string{"name": "app"})
	end(nil)
	o.Close()
	// Output: artifact fetch map[name:app]
}
