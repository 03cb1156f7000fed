package telemetry

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/observe"
)

// A story tells the room what happens to jobs.
type story struct {
	*world
	hears map[string]func(context.Context, event.Event) error
}

func tell(w *world) *story {
	s := &story{w, map[string]func(context.Context, event.Event) error{}}
	for _, sub := range w.Subscriptions() {
		s.hears[sub.Subject] = sub.Handle
	}
	return s
}

func say[T any](s *story, k event.Kind[T], job string, attempt int, d T) {
	s.t.Helper()
	s.pass(10 * time.Millisecond)
	e := k.Event(event.About{Tenant: "acme", Key: job, Twist: fmt.Sprint(attempt), At: s.clock()}, d)
	if err := s.hears[k.Subject](s.t.Context(), e); err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) request(job string, n int) {
	say(s, event.JobRequested, job, n, event.JobRequest{Job: ident.Job(job), Attempt: n})
}
func (s *story) assign(job string, n int) {
	say(s, event.AssignmentCreated, job, n, event.Assignment{Job: ident.Job(job), Attempt: n})
}
func (s *story) start(job string) {
	say(s, event.JobStarted, job, 1, event.JobStart{Job: ident.Job(job), Attempt: 1})
}
func (s *story) done(job string) {
	say(s, event.JobCompleted, job, 1, event.JobDone{Job: ident.Job(job), Attempt: 1})
}

// numbers returns what /metrics says of one series, by its labels.
func (w *world) number(series string) string {
	w.t.Helper()
	_, rec := w.call("acme", "/metrics", "", nil)
	for line := range strings.SplitSeq(rec.Body.String(), "\n") {
		if v, ok := strings.CutPrefix(line, series+" "); ok {
			return v
		}
	}
	return ""
}

func (w *world) expect(want map[string]string) {
	w.t.Helper()
	for series, v := range want {
		if got := w.number(series); got != v {
			w.t.Errorf("%s is %q, want %q", series, got, v)
		}
	}
}

func TestJobsAreCounted(t *testing.T) {
	w := open(t, nil)
	s := tell(w)
	s.request("a", 1)
	s.request("b", 1)
	s.request("c", 1)
	s.request("c", 1) // again
	s.assign("b", 1)
	s.assign("c", 1)
	s.start("c")
	s.assign("c", 1) // late
	s.assign("never-heard-of", 1)
	w.expect(map[string]string{
		`fragua_jobs{state="PENDING"}`: "1.0", `fragua_jobs{state="SCHEDULED"}`: "1.0", `fragua_jobs{state="RUNNING"}`: "1.0",
		`fragua_queue_depth{queue="jobs"}`: "1.0", "fragua_scheduling_latency_seconds_count": "2",
	})
	s.done("c")
	s.done("c")       // again
	s.request("c", 1) // a copy that comes when all is over
	s.start("b")
	say(s, event.JobTerminated, "b", 1, event.JobFault{Job: "b", Attempt: 1})
	say(s, event.JobRetrying, "b", 1, event.JobRetry{Job: "b", Attempt: 1})
	w.expect(map[string]string{
		`fragua_jobs{state="PENDING"}`: "2.0", `fragua_jobs{state="SCHEDULED"}`: "0.0", `fragua_jobs{state="RUNNING"}`: "0.0",
		`fragua_jobs_ended_total{state="SUCCEEDED"}`: "1.0", `fragua_job_retries_total`: "1.0",
	})
	s.start("b") // late: of the attempt before
	s.request("b", 2)
	s.assign("b", 2)
	say(s, event.JobTerminated, "b", 2, event.JobFault{Job: "b", Attempt: 2, Final: true})
	say(s, event.JobCancelled, "a", 1, event.JobStop{Job: "a", Attempt: 1})
	say(s, event.JobFailed, "skipped", 1, event.JobFault{Job: "skipped", Attempt: 1, Final: true})
	say(s, event.StepCompleted, "a", 1, event.StepEnd{DurationMS: 1500})
	say(s, event.StepFailed, "a", 1, event.StepFault{DurationMS: 500})
	w.expect(map[string]string{
		`fragua_jobs{state="PENDING"}`: "0.0", `fragua_jobs_ended_total{state="TERMINATED"}`: "1.0", `fragua_jobs_ended_total{state="CANCELLED"}`: "1.0",
		`fragua_jobs_ended_total{state="FAILED"}`: "1.0", "fragua_scheduling_latency_seconds_count": "3", "fragua_job_duration_seconds_count": "4",
		`fragua_step_duration_seconds_sum{outcome="completed"}`: "1.5", `fragua_step_duration_seconds_sum{outcome="failed"}`: "0.5",
	})
}

func TestWorkersAreCounted(t *testing.T) {
	w := open(t, nil)
	s := tell(w)
	for _, id := range []ident.Worker{"w1", "w2", "w2", "w3"} {
		say(s, event.WorkerCreated, string(id), 1, event.WorkerMade{Worker: id})
	}
	say(s, event.WorkerTerminated, "w1", 1, event.WorkerEnd{Worker: "w1"})
	say(s, event.WorkerCreated, "w1", 1, event.WorkerMade{Worker: "w1"}) // late
	say(s, event.WorkerFailed, "w3", 1, event.WorkerLoss{Worker: "w3"})
	w.expect(map[string]string{"fragua_workers": "1.0", `fragua_workers_ended_total{outcome="terminated"}`: "1.0", `fragua_workers_ended_total{outcome="failed"}`: "1.0"})
}

// TestWhatLivesSurvives has the room closed, and opened by another process.
func TestWhatLivesSurvives(t *testing.T) {
	w := open(t, nil)
	s := tell(w)
	s.request("a", 1)
	s.request("b", 1)
	s.start("b")
	s.request("gone", 1)
	say(s, event.WorkerCreated, "w1", 1, event.WorkerMade{Worker: "w1"})
	if err := w.live.save(t.Context(), w.DB()); err != nil {
		t.Fatal(err)
	}
	s.done("gone")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w.cfg.Observe.Close()
	w.cfg.Observe = observe.New(observe.Config{Now: w.clock})
	defer w.cfg.Observe.Close()
	w.open()
	w.expect(map[string]string{`fragua_jobs{state="PENDING"}`: "1.0", `fragua_jobs{state="RUNNING"}`: "1.0", "fragua_workers": "1.0"})
	s = tell(w)
	s.start("b")
	s.done("b")
	w.expect(map[string]string{`fragua_jobs{state="RUNNING"}`: "0.0"})
	w.pass(forgotten + time.Hour)
	w.live.sweep(w.clock())
	w.expect(map[string]string{`fragua_jobs{state="PENDING"}`: "0.0", "fragua_workers": "0.0"})
	if err := w.live.save(t.Context(), w.DB()); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := w.DB().QueryRow(t.Context(), `SELECT COUNT(*) FROM live`).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows, %v", n, err)
	}
	w.pass(goneFor + time.Second)
	w.live.sweep(w.clock())
	if len(w.live.gone) != 0 {
		t.Errorf("%d names of the ended", len(w.live.gone))
	}
}

func TestHearRefusesNonsense(t *testing.T) {
	s := tell(open(t, nil))
	if err := s.hears["ci.job.started"](t.Context(), event.Event{ID: "x", Subject: "ci.job.started", Data: json.RawMessage(`{"attempt":"one"}`)}); err == nil {
		t.Error("it was taken")
	}
}

func TestMetricsForScrapers(t *testing.T) {
	w := open(t, nil)
	for accept, want := range map[string]string{
		"": "application/openmetrics-text; version=1.0.0", "*/*": "application/openmetrics-text; version=1.0.0",
		"application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1": "application/openmetrics-text; version=1.0.0",
		"text/plain;version=0.0.4": "text/plain; version=0.0.4",
	} {
		code, rec := w.call("acme", "/metrics", accept, nil)
		body := rec.Body.String()
		if code != 200 || !strings.HasPrefix(rec.Header().Get("Content-Type"), want) || !strings.Contains(body, "\n# TYPE fragua_jobs gauge\n") {
			t.Errorf("%q: %d %s", accept, code, rec.Header())
		}
		if eof := strings.HasSuffix(body, "\n# EOF\n"); eof != strings.HasPrefix(want, "application/openmetrics") {
			t.Errorf("%q: it ends with # EOF: %v", accept, eof)
		}
	}
}

func TestMetricsOverTime(t *testing.T) {
	w := open(t, nil)
	s := tell(w)
	for i := range maxSamples + 5 {
		s.request(fmt.Sprint("j", i), 1)
		if err := w.sample(); err != nil {
			t.Fatal(err)
		}
		w.pass(10 * time.Second)
	}
	var got metricsBody
	if code, rec := w.call("acme", "/metrics?name=fragua_jobs&since=1m", "application/json", &got); code != 200 || rec.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v", code, rec.Header())
	}
	if len(got.Items) != 3 {
		t.Fatalf("%d series: %+v", len(got.Items), got.Items)
	}
	p := got.Items[0]
	if p.Name != "fragua_jobs" || p.Kind != "gauge" || p.Labels["state"] != "PENDING" || len(p.Samples) != 6 || p.Samples[5].Value != maxSamples+5 || p.Samples[0].Value != maxSamples+1 {
		t.Errorf("%+v", p)
	}
	w.call("acme", "/metrics?name=fragua_jobs", "application/json", &got)
	if n := len(got.Items[0].Samples); n != maxSamples+1 || got.Items[0].Samples[0].Value != 6 {
		t.Errorf("%d samples, from %+v", n, got.Items[0].Samples[0])
	}
	since := w.clock().Add(-15 * time.Second).Format(time.RFC3339)
	w.call("acme", "/metrics?name=fragua_jobs&since="+since, "application/json", &got)
	if n := len(got.Items[0].Samples); n != 2 {
		t.Errorf("%d samples since %s", n, since)
	}
	if w.call("acme", "/metrics?name=none", "application/json", &got); len(got.Items) != 0 {
		t.Errorf("%+v", got.Items)
	}
	if w.call("acme", "/metrics", "application/json", &got); len(got.Items) < 20 {
		t.Errorf("%d series in all", len(got.Items))
	}
}

func TestSeriesAreBounded(t *testing.T) {
	r := newRing()
	for i := range maxSeries + 10 {
		r.add([]series{{name: fmt.Sprint("n", i), readings: []reading{{value: 1}}}})
	}
	if n := len(r.find("", time.Time{})); n != maxSeries {
		t.Errorf("%d series", n)
	}
}

// TestRun lets the clock go: samples, measurements told, what lives written down.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, func(c *Config) { c.Now = time.Now })
		s := tell(w)
		s.request("a", 1)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		time.Sleep(61 * time.Second)
		synctest.Wait()
		var n int
		if err := w.DB().QueryRow(t.Context(), `SELECT COUNT(*) FROM live`).Scan(&n); err != nil || n != 1 {
			t.Errorf("%d rows, %v", n, err)
		}
		found := false
		for _, m := range said(w, event.MetricEmitted) {
			found = found || m.Name == "fragua_jobs" && m.Tags["state"] == "PENDING" && m.Value == 1 && m.Kind == "gauge"
		}
		if !found {
			t.Error("nobody was told of the job")
		}
		var got metricsBody
		if w.call("acme", "/metrics?name=fragua_jobs", "application/json", &got); len(got.Items[0].Samples) != 7 {
			t.Errorf("%d samples in a minute", len(got.Items[0].Samples))
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		w.Close()
		w.cfg.Observe.Close()
	})
}

func BenchmarkHear(b *testing.B) {
	s := tell(open(b, nil))
	e := event.JobRequested.Event(event.About{Tenant: "acme", Key: "a", At: s.clock()}, event.JobRequest{Job: "a", Attempt: 1})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := s.live.hear(e); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStore keeps 1024 spans of 100 jobs at a time.
func BenchmarkStore(b *testing.B) {
	w := open(b, nil)
	var spans []event.Span
	for i := range 100 {
		spans = append(spans, some(10, fmt.Sprintf("%032x", i))...)
	}
	for i := range spans {
		spans[i].Attributes["job_id"] = fmt.Sprint("job_", i/10)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := w.store(b.Context(), spans); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(spans)), "µs/span")
}
