package console

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/httpapi"
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
	hears map[string]func(context.Context, event.Event) error

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
	w.cfg = Config{Dir: t.TempDir(), Now: w.clock, IDs: ident.NewSource(w.clock), Log: slog.New(slog.DiscardHandler), Decider: w.judge}
	if change != nil {
		change(&w.cfg)
	}
	w.open()
	t.Cleanup(func() { w.Close() })
	return w
}

func (w *world) open() {
	w.t.Helper()
	r, err := Open(context.Background(), w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Room, w.hears = r, map[string]func(context.Context, event.Event) error{}
	for _, s := range r.Subscriptions() {
		w.hears[s.Subject] = s.Handle
	}
}

func (w *world) restart() {
	w.t.Helper()
	if err := w.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

// hear delivers events and fails if one is refused.
func (w *world) hear(events ...event.Event) {
	w.t.Helper()
	for _, e := range events {
		if err := w.hears[e.Subject](w.t.Context(), e); err != nil {
			w.t.Fatalf("%s: %v", e.ID, err)
		}
	}
}

// made makes an event about a job, a second after the one before.
func made[T any](w *world, k event.Kind[T], job string, attempt int, d T) event.Event {
	w.pass(time.Second)
	return k.Event(event.About{Tenant: "acme", Key: job, Twist: fmt.Sprint(attempt), At: w.clock()}, d)
}

func (w *world) requested(job string, n int) event.Event {
	return made(w, event.JobRequested, job, n, event.JobRequest{Job: ident.Job(job), Attempt: n, Tenant: "acme", Pipeline: "pip_1", Run: "run_1",
		Spec: spec.Job{Steps: []spec.Step{{Name: "unit", Run: "x"}, {Run: "y"}}}})
}

func (w *world) assigned(job string, n int) event.Event {
	return made(w, event.AssignmentCreated, job, n, event.Assignment{Job: ident.Job(job), Attempt: n, Node: "n1"})
}

func (w *world) started(job string, n int) event.Event {
	return made(w, event.JobStarted, job, n, event.JobStart{Job: ident.Job(job), Attempt: n, Worker: "w1"})
}

func (w *world) step(job string, n, i int) event.Event {
	return made(w, event.StepStarted, job, n, event.StepBegin{Job: ident.Job(job), Attempt: n, Index: i})
}

func (w *world) done(job string, n int) event.Event {
	return made(w, event.JobCompleted, job, n, event.JobDone{Job: ident.Job(job), Attempt: n})
}

func (w *world) serve() http.Handler {
	mux := http.NewServeMux()
	w.Routes(httpapi.New(mux, "test"))
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		who := authz.Principal{Sub: "ann", Scopes: []string{"*"}, Tenant: ident.Tenant(r.Header.Get("Tenant"))}
		if s := r.Header.Get("Expires-In"); s != "" {
			d, err := time.ParseDuration(s)
			if err != nil {
				w.t.Error(err)
			}
			who.Expires = w.clock().Add(d)
		}
		mux.ServeHTTP(rw, r.WithContext(authz.With(r.Context(), who)))
	})
}

type listing struct {
	Items []jobBody `json:"items"`
	Next  string    `json:"next_cursor"`
}

func (w *world) list(tenant, query string) (int, listing) {
	w.t.Helper()
	req := httptest.NewRequest("GET", "/ui/jobs"+query, nil)
	req.Header.Set("Tenant", tenant)
	rec := httptest.NewRecorder()
	w.serve().ServeHTTP(rec, req)
	var l listing
	if rec.Code == 200 {
		if err := json.Unmarshal(rec.Body.Bytes(), &l); err != nil {
			w.t.Fatalf("%v in %s", err, rec.Body)
		}
	}
	return rec.Code, l
}

func ids(l listing) string {
	var out []string
	for _, j := range l.Items {
		out = append(out, string(j.ID))
	}
	return strings.Join(out, " ")
}

// one returns the only job there is.
func (w *world) one() jobBody {
	w.t.Helper()
	_, l := w.list("acme", "")
	if len(l.Items) != 1 {
		w.t.Fatalf("%d jobs", len(l.Items))
	}
	return l.Items[0]
}

func TestAJobsLife(t *testing.T) {
	w := open(t, nil)
	w.hear(w.requested("j1", 1))
	created := w.clock()
	if j := w.one(); j.State != pending || j.Class != "waiting" || j.Attempts != 1 || !j.Created.Equal(created) || j.Started != nil || j.Step != nil || j.Pipeline != "pip_1" || j.Run != "run_1" || j.Name != "j1" || j.DurationMS != 0 {
		t.Errorf("%+v", j)
	}
	w.hear(w.assigned("j1", 1))
	if j := w.one(); j.State != scheduled || j.Node != "n1" {
		t.Errorf("%+v", j)
	}
	w.hear(w.started("j1", 1), w.step("j1", 1, 0), w.step("j1", 1, 1))
	w.pass(1500 * time.Millisecond)
	if j := w.one(); j.State != running || j.Class != "active" || j.Worker != "w1" || j.DurationMS != 3500 || *j.Step != (stepBody{"step-2", 1, 2}) {
		t.Errorf("%+v %+v", j, j.Step)
	}
	w.hear(made(w, event.StepFailed, "j1", 1, event.StepFault{Job: "j1", Attempt: 1, Index: 1, Code: "exit", Message: "exit status 1", Retryable: true, Last: true}))
	w.hear(made(w, event.JobRetrying, "j1", 1, event.JobRetry{Job: "j1", Attempt: 1, Reason: "the step failed"}))
	if j := w.one(); j.State != pending || j.Attempts != 2 || j.Started != nil || j.Node != "" || j.Step != nil || *j.Failure != (failure{"exit", "exit status 1", true}) {
		t.Errorf("%+v %+v", j, j.Failure)
	}
	w.restart()
	w.hear(w.requested("j1", 2), w.assigned("j1", 2), w.started("j1", 2))
	w.hear(made(w, event.JobTerminated, "j1", 2, event.JobFault{Job: "j1", Attempt: 2, Code: "lost", Message: "the worker died", Retryable: true}))
	if j := w.one(); j.State != terminated || j.Class != "lost" || j.Failure.Code != "lost" {
		t.Errorf("%+v", j)
	}
	w.hear(made(w, event.JobRetrying, "j1", 2, event.JobRetry{Job: "j1", Attempt: 2, Reason: "the worker died"}))
	if j := w.one(); j.State != pending || j.Attempts != 3 || j.Failure.Code != "lost" {
		t.Errorf("%+v", j)
	}
	w.hear(w.requested("j1", 3), w.assigned("j1", 3), w.started("j1", 3), w.step("j1", 3, 0), w.done("j1", 3))
	w.pass(time.Hour)
	if j := w.one(); j.State != succeeded || j.Class != "success" || j.DurationMS != 2000 || j.Finished == nil || j.Failure != nil || !j.Created.Equal(created) || j.Step.Name != "unit" {
		t.Errorf("%+v", j)
	}
}

func TestHowJobsEnd(t *testing.T) {
	w := open(t, nil)
	w.hear(w.requested("failed", 1), made(w, event.JobFailed, "failed", 1, event.JobFault{Job: "failed", Attempt: 1, Final: true, Code: "exit", Message: strings.Repeat("é", 5000)}))
	w.hear(w.requested("lost", 1), made(w, event.JobTerminated, "lost", 1, event.JobFault{Job: "lost", Attempt: 1, Final: true, Code: "lost"}))
	w.hear(w.requested("cancelled", 1), made(w, event.JobCancelled, "cancelled", 1, event.JobStop{Job: "cancelled", Attempt: 1, Reason: "bored"}))
	w.hear(made(w, event.JobCancelled, "skipped", 1, event.JobStop{Job: "skipped", Attempt: 1, Reason: "needs failed", Run: "run_1"})) // never asked for
	_, l := w.list("acme", "")
	got := map[string]jobBody{}
	for _, j := range l.Items {
		got[string(j.ID)] = j
	}
	for id, want := range map[string][3]string{"failed": {failed, "danger", "exit"}, "lost": {terminated, "lost", "lost"}, "cancelled": {cancelled, "muted", "cancelled"}, "skipped": {cancelled, "muted", "cancelled"}} {
		if j := got[id]; j.State != want[0] || j.Class != want[1] || j.Failure == nil || j.Failure.Code != want[2] || j.Finished == nil {
			t.Errorf("%s: %+v", id, j)
		}
	}
	if n := len(got["failed"].Failure.Message); n == 0 || n > maxText {
		t.Errorf("a message of %d bytes", n)
	}
	if got["cancelled"].Failure.Message != "bored" {
		t.Errorf("%+v", got["cancelled"].Failure)
	}
}

// TestOrderDoesNotMatter tells what happened in every order, twice.
func TestOrderDoesNotMatter(t *testing.T) {
	w := open(t, nil)
	what := []event.Event{
		w.requested("j", 1), w.assigned("j", 1), w.started("j", 1),
		made(w, event.JobRetrying, "j", 1, event.JobRetry{Job: "j", Attempt: 1, Reason: "again"}), w.requested("j", 2), w.done("j", 2),
	}
	in := func(order []int) job {
		var j job
		for range 2 {
			for _, i := range order {
				d, err := read(what[i])
				if err != nil {
					t.Fatal(err)
				}
				j = j.hear(what[i], d)
			}
		}
		return j
	}
	want := fmt.Sprintf("%+v", in([]int{0, 1, 2, 3, 4, 5}))
	if !strings.Contains(want, succeeded) {
		t.Fatal(want)
	}
	n := 0
	var permute func(order, left []int)
	permute = func(order, left []int) {
		if len(left) == 0 {
			n++
			if got := fmt.Sprintf("%+v", in(order)); got != want {
				t.Errorf("%v: %s, want %s", order, got, want)
			}
			return
		}
		for i := range left {
			rest := append(append([]int{}, left[:i]...), left[i+1:]...)
			permute(append(append([]int{}, order...), left[i]), rest)
		}
	}
	permute(nil, []int{0, 1, 2, 3, 4, 5})
	if n != 720 {
		t.Errorf("%d orders", n)
	}
}

func TestNoJobs(t *testing.T) {
	w := open(t, nil)
	w.hear(made(w, event.StepStarted, "w1", 0, event.StepBegin{Index: -1}))                    // by POST /exec
	w.hear(made(w, event.AssignmentCreated, "j1", 0, event.Assignment{Job: "j1", Node: "n1"})) // by POST /schedule
	if _, l := w.list("acme", ""); len(l.Items) != 0 {
		t.Errorf("%+v", l)
	}
	if err := w.hears["ci.job.started"](t.Context(), event.Event{ID: "x", Subject: "ci.job.started", Data: json.RawMessage(`[]`)}); err == nil {
		t.Error("nonsense was taken")
	}
}

func TestFilters(t *testing.T) {
	w := open(t, nil)
	for i := range 5 {
		w.hear(w.requested(fmt.Sprint("job_", i), 1))
	}
	odd := made(w, event.JobRequested, "x%y", 1, event.JobRequest{Job: "x-1", Attempt: 1, Pipeline: "other"})
	w.hear(odd, w.done("job_0", 1), made(w, event.JobFailed, "job_1", 1, event.JobFault{Job: "job_1", Attempt: 1, Final: true}))
	foreign := w.requested("foreign", 1)
	foreign.Tenant = "other"
	w.hear(foreign)
	for query, want := range map[string]string{
		"": "x-1 job_4 job_3 job_2 job_1 job_0", "?state=PENDING": "x-1 job_4 job_3 job_2", "?state=SUCCEEDED": "job_0", "?state=FAILED": "job_1",
		"?pipeline_id=other": "x-1", "?run_id=run_1&state=PENDING": "job_4 job_3 job_2", "?q=ob_3": "job_3", "?q=JOB_3": "job_3", "?q=%25": "", "?q=OTHER": "x-1",
		"?q=run_1&pipeline_id=pip_1": "job_4 job_3 job_2 job_1 job_0", "?pipeline_id=none": "", "?q=foreign": "",
	} {
		if code, l := w.list("acme", query); code != 200 || ids(l) != want {
			t.Errorf("%s: %d %q, want %q", query, code, ids(l), want)
		}
	}
	if _, l := w.list("other", ""); ids(l) != "foreign" {
		t.Errorf("another tenant sees %q", ids(l))
	}
	var all []string
	for query := "?limit=2"; ; {
		_, l := w.list("acme", query)
		all = append(all, ids(l))
		if l.Next == "" || len(all) > 5 {
			break
		}
		query = "?limit=2&cursor=" + l.Next
	}
	if got := strings.Join(all, "|"); got != "x-1 job_4|job_3 job_2|job_1 job_0" {
		t.Errorf("pages %q", got)
	}
	for query, want := range map[string]int{"?state=DONE": 422, "?limit=0": 422, "?cursor=x": 422, "?cursor=MS8uLg": 422} {
		if code, _ := w.list("acme", query); code != want {
			t.Errorf("%s: %d, want %d", query, code, want)
		}
	}
	w.judge.no = "no"
	if code, _ := w.list("acme", ""); code != 403 {
		t.Errorf("denied: %d", code)
	}
}

func TestNameOfAJob(t *testing.T) {
	w := open(t, nil)
	e := w.requested("j1", 1)
	e.Data = json.RawMessage(strings.Replace(string(e.Data), `{`, `{"name":"test",`, 1))
	w.hear(e)
	if j := w.one(); j.Name != "test" {
		t.Errorf("%+v", j)
	}
}

// TestManyAtOnce has as many jobs told at once as the bus does.
func TestManyAtOnce(t *testing.T) {
	w := open(t, nil)
	const jobs = 300
	var wg sync.WaitGroup
	life := make(chan []event.Event, jobs)
	for i := range jobs {
		id := fmt.Sprint("j", i)
		life <- []event.Event{w.requested(id, 1), w.assigned(id, 1), w.started(id, 1), w.step(id, 1, 0), w.done(id, 1)}
	}
	close(life)
	for range 48 {
		wg.Go(func() {
			for events := range life {
				for _, e := range events {
					if err := w.hears[e.Subject](t.Context(), e); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if _, l := w.list("acme", "?state=SUCCEEDED&limit=1000"); len(l.Items) != jobs {
		t.Errorf("%d jobs have succeeded", len(l.Items))
	}
	if len(w.cache) != 0 {
		t.Errorf("%d ended jobs are remembered", len(w.cache))
	}
}

func TestClosedRoomRefuses(t *testing.T) {
	w := open(t, nil)
	e := w.requested("j", 1)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.hears[e.Subject](t.Context(), e); err == nil {
		t.Error("it was acknowledged")
	}
}

func TestShrink(t *testing.T) {
	w := open(t, func(c *Config) { c.MaxJobs, c.KeepFor = 6, 24*time.Hour })
	w.hear(w.requested("live", 1))
	for i := range 3 {
		id := fmt.Sprint("old", i)
		w.hear(w.requested(id, 1), w.done(id, 1))
	}
	w.pass(25 * time.Hour)
	for i := range 8 {
		id := fmt.Sprint("new", i)
		w.hear(w.requested(id, 1), w.done(id, 1))
	}
	if err := w.shrink(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, l := w.list("acme", ""); ids(l) != "new7 new6 new5 new4 new3 live" {
		t.Errorf("%q", ids(l))
	}
	w.cfg.MaxJobs = 100
	w.restart()
	w.pass(25 * time.Hour)
	if err := w.shrink(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, l := w.list("acme", ""); ids(l) != "live" {
		t.Errorf("%q", ids(l))
	}
}

// BenchmarkHear tells of jobs as fast as 48 queues of the bus can.
func BenchmarkHear(b *testing.B) {
	w := open(b, nil)
	todo := make(chan int, 1024)
	var wg sync.WaitGroup
	for range 48 {
		wg.Go(func() {
			for i := range todo {
				id := fmt.Sprint("j", i)
				for _, e := range []event.Event{w.requested(id, 1), w.assigned(id, 1), w.started(id, 1), w.step(id, 1, 0), w.done(id, 1)} {
					if err := w.hears[e.Subject](context.Background(), e); err != nil {
						b.Error(err)
					}
				}
			}
		})
	}
	i := 0
	for ; b.Loop(); i++ {
		todo <- i
	}
	close(todo)
	wg.Wait()
	b.ReportMetric(float64(i)/b.Elapsed().Seconds(), "jobs/s")
}
