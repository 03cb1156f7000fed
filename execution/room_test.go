package execution

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/logframe"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/execution/agentclient"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/httpapi/apitest"
	"fragua.dev/fragua/internal/sqldb"
)

// worker is an agent in memory. Its executions go on until they are let go.
type worker struct {
	mu       sync.Mutex
	asked    []agentapi.ExecRequest
	renewed  int
	stopped  bool   // it answers no sign of life
	gone     bool   // there is nobody
	fails    bool   // its executions end with 3
	ignorant bool   // it knows of no execution
	log      []byte // what its executions have printed, in frames
	over     map[ident.Exec]chan struct{}
	exec     func(ctx context.Context) error // before an execution begins
	file     func(ctx context.Context) (io.ReadCloser, string, error)
}

func newWorker() *worker { return &worker{over: map[ident.Exec]chan struct{}{}} }

// ending returns what is closed when an execution ends; w.mu is held.
func (w *worker) ending(id ident.Exec) chan struct{} {
	if w.over[id] == nil {
		w.over[id] = make(chan struct{})
	}
	return w.over[id]
}

// end ends an execution, also one that has not begun yet.
func (w *worker) end(id ident.Exec) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.ending(id))
}

func (w *worker) requests() []agentapi.ExecRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]agentapi.ExecRequest(nil), w.asked...)
}

func (w *worker) Exec(ctx context.Context, r agentapi.ExecRequest) (agentapi.Exec, error) {
	if w.exec != nil {
		if err := w.exec(ctx); err != nil {
			return agentapi.Exec{}, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone {
		return agentapi.Exec{}, agentclient.ErrUnreachable
	}
	if !slices.ContainsFunc(w.asked, func(q agentapi.ExecRequest) bool { return q.Step == r.Step }) {
		w.asked = append(w.asked, r)
	}
	return agentapi.Exec{Exec: r.Exec, Step: r.Step, State: agentapi.Started, Started: time.Now()}, nil
}

func (w *worker) wait(ctx context.Context, id ident.Exec) error {
	w.mu.Lock()
	over := w.ending(id)
	w.mu.Unlock()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return errors.Join(agentclient.ErrUnreachable, ctx.Err())
	}
}

func (w *worker) Complete(ctx context.Context, r agentapi.CompleteRequest) (agentapi.Exec, error) {
	w.mu.Lock()
	ignorant := w.ignorant
	w.mu.Unlock()
	if ignorant {
		return agentapi.Exec{}, errors.New("no such execution")
	}
	err := w.wait(ctx, r.Exec)
	x := agentapi.Exec{Exec: r.Exec, State: agentapi.Completed, Started: time.Now(), Finished: time.Now()}
	if w.fails {
		x.State, x.Code, x.ExitCode = agentapi.Failed, agentapi.CodeExit, 3
	}
	return x, err
}

func (w *worker) Logs(ctx context.Context, id ident.Exec, _ int64) (io.ReadCloser, error) {
	if w.log != nil {
		e := endless{ctx}
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(w.log), e), e}, nil
	}
	return io.NopCloser(bytes.NewReader(nil)), w.wait(ctx, id)
}

func (w *worker) Cancel(context.Context, agentapi.CancelRequest) (agentapi.Exec, error) {
	return agentapi.Exec{}, nil
}
func (w *worker) Workspace(context.Context, io.Reader) error { return nil }
func (w *worker) File(ctx context.Context, _ string) (io.ReadCloser, string, error) {
	return w.file(ctx)
}
func (w *worker) Lease(context.Context) (agentapi.LeaseReply, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.renewed++; w.stopped {
		return agentapi.LeaseReply{}, agentclient.ErrUnreachable
	}
	return agentapi.LeaseReply{}, nil
}
func (w *worker) Close() {}

// bench is a room, and the worker that all its calls reach.
type bench struct {
	*Room
	t   *testing.T
	w   *worker
	mux *http.ServeMux

	mu   sync.Mutex
	said []event.Event
	news chan struct{} // something was said
}

func newBench(t *testing.T, change func(*Config)) *bench {
	b := &bench{t: t, w: newWorker(), mux: http.NewServeMux(), news: make(chan struct{}, 1)}
	cfg := Config{
		Now: time.Now, IDs: ident.NewSource(time.Now), Log: slog.New(slog.DiscardHandler), Decider: apitest.Permit{},
		Dial: func(string, ident.Tenant, ident.Worker) Agent { return b.w },
	}
	if change != nil {
		change(&cfg)
	}
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	r, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	b.Room = r
	r.DB().OnCommit(func(rows []sqldb.Row) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, row := range rows {
			b.said = append(b.said, row.Event)
		}
		select {
		case b.news <- struct{}{}:
		default:
		}
	})
	r.Routes(httpapi.New(b.mux, "test"))
	return b
}

// work has the room be at work until stop, which waits for its end.
func (b *bench) work() (stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	over := make(chan error)
	go func() { over <- b.Run(ctx) }()
	return func() {
		cancel()
		<-over
	}
}

// hear waits until an event of a kind was said.
func (b *bench) hear(subject string) event.Event {
	b.t.Helper()
	late := time.After(10 * time.Second)
	for {
		b.mu.Lock()
		for _, e := range b.said {
			if e.Subject == subject {
				b.mu.Unlock()
				return e
			}
		}
		b.mu.Unlock()
		select {
		case <-b.news:
		case <-late:
			b.t.Fatalf("nobody said %s", subject)
		}
	}
}

// start lets a job of one step begin.
func (b *bench) start(job spec.Job) {
	b.t.Helper()
	d := event.JobStart{Job: "job_1", Worker: "wrk_1", Attempt: 1, Address: "here", Spec: job.Normal(), Steps: []ident.Step{"stp_1"},
		Deadline: time.Now().Add(time.Duration(job.Normal().TimeoutMS) * time.Millisecond)}
	e := event.JobStarted.Event(event.About{Tenant: "acme", Key: "job_1", Twist: "1", Correlation: "cor", At: time.Now()}, d)
	if err := b.started(b.t.Context(), e, d); err != nil {
		b.t.Fatal(err)
	}
}

// lend tells of a worker without a job, wrk_2.
func (b *bench) lend() {
	b.t.Helper()
	const w = ident.Worker("wrk_2")
	made := event.WorkerMade{Worker: w, Address: "here"}
	if err := b.lone(b.t.Context(), event.WorkerCreated.Event(event.About{Tenant: "acme", Key: string(w), At: time.Now()}, made), made); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) call(path string, in, out any) int {
	b.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		b.t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	cause := event.Because(r.Context(), event.Cause{Correlation: "asked", TraceParent: "traced"})
	r = r.WithContext(authz.With(cause, authz.Principal{Sub: "ann", Tenant: "acme"}))
	w := httptest.NewRecorder()
	b.mux.ServeHTTP(w, r)
	if w.Code < 300 && out != nil {
		if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
			b.t.Fatalf("%s: %v", path, err)
		}
	}
	return w.Code
}

// TestStepOfJobIsNotStartedTwice asks by POST /exec for the step that a job has
// at work, and for it again when it has ended.
func TestStepOfJobIsNotStartedTwice(t *testing.T) {
	b := newBench(t, nil)
	b.start(spec.Job{Command: []string{"make", "all"}})
	own := b.hear(event.StepStarted.Subject)
	began, _ := event.StepStarted.Read(own)
	same := map[string]any{"step_id": "stp_1", "job_id": "job_1", "command": []string{"make", "all"}}
	another := map[string]any{"step_id": "stp_1", "job_id": "job_1", "command": []string{"make", "clean"}}
	for _, when := range []string{"at work", "ended"} {
		var x Execution
		if code := b.call("/exec", same, &x); code != http.StatusOK || x.ID != began.Exec || x.Job != "job_1" || x.Step != "stp_1" {
			t.Errorf("%s, the same: %d %+v", when, code, x)
		}
		if code := b.call("/exec", another, nil); code != http.StatusConflict {
			t.Errorf("%s, another: %d, want 409", when, code)
		}
		if code := b.call("/complete", map[string]any{"exec_id": began.Exec, "wait_ms": 1}, &x); code > 202 || x.Job != "job_1" {
			t.Errorf("%s, /complete: %d %+v", when, code, x)
		}
		if when == "at work" && x.ExitCode != -1 {
			t.Errorf("at work its exit code is %d", x.ExitCode)
		}
		if n := len(b.w.requests()); n != 1 {
			t.Fatalf("%s: the worker was asked %d times", when, n)
		}
		if when == "at work" {
			b.w.end(began.Exec)
			b.hear(event.StepCompleted.Subject)
		}
	}
}

// TestNamesOfJobsAreTheirs keeps POST /exec from taking what a job will need.
func TestNamesOfJobsAreTheirs(t *testing.T) {
	b := newBench(t, nil)
	b.start(spec.Job{Command: []string{"make"}})
	b.hear(event.StepStarted.Subject)
	for _, c := range []struct {
		step, exec string
		want       int
	}{
		{"stp_1.2", "", http.StatusConflict}, // the second try's
		{"mine", "exe_1_1_2", http.StatusUnprocessableEntity},
		{"mine", "", http.StatusCreated},
	} {
		in := map[string]any{"step_id": c.step, "job_id": "job_1", "command": []string{"ls"}}
		if c.exec != "" {
			in["exec_id"] = c.exec
		}
		if code := b.call("/exec", in, nil); code != c.want {
			t.Errorf("%+v: %d", c, code)
		}
	}
}

// shelf keeps artifacts as slowly as they come.
type shelf struct{}

func (shelf) Keep(_ context.Context, _ ident.Tenant, _ spec.ArtifactRef, r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
func (shelf) Open(context.Context, ident.Tenant, spec.ArtifactRef) (io.ReadCloser, error) {
	return nil, errors.New("nothing is kept here")
}

// endless is a file whose content never comes.
type endless struct{ ctx context.Context }

func (e endless) Read([]byte) (int, error) {
	<-e.ctx.Done()
	return 0, e.ctx.Err()
}
func (endless) Close() error { return nil }

// TestTimeoutHoldsForArtifacts ends a job whose artifact cannot be read to its end.
func TestTimeoutHoldsForArtifacts(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Keeper = shelf{} })
	b.w.file = func(ctx context.Context) (io.ReadCloser, string, error) { return endless{ctx}, "file", nil }
	b.start(spec.Job{Command: []string{"make"}, TimeoutMS: 300, Artifacts: []spec.Artifact{{Name: "app", Path: "app"}}})
	began, _ := event.StepStarted.Read(b.hear(event.StepStarted.Subject))
	b.w.end(began.Exec)
	d, _ := event.StepFailed.Read(b.hear(event.StepFailed.Subject))
	if d.Code != codeDeadline || !d.Retryable || !strings.HasPrefix(d.Message, "the job ran longer than its timeout of 300ms: ") {
		t.Errorf("%+v", d)
	}
}

// TestTimeoutHoldsForAWorkerThatIsStopped has a step of whose end nobody tells.
func TestTimeoutHoldsForAWorkerThatIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.start(spec.Job{Command: []string{"make"}, TimeoutMS: 60_000})
		time.Sleep(time.Minute + overtime + answerTime + drain + time.Second)
		synctest.Wait()
		d, _ := event.StepFailed.Read(b.hear(event.StepFailed.Subject))
		if d.Code != codeDeadline || !d.Retryable || !strings.HasPrefix(d.Message, "the job ran longer than its timeout of 1m0s, ") {
			t.Errorf("%+v", d)
		}
		b.Close()
	})
}

// restarted returns a room that was closed while a step ran, and is open again; it has yet
// to take up what was left.
func restarted(t *testing.T, dir string) (b *bench, began event.StepBegin) {
	t.Helper()
	inDir := func(c *Config) { c.Dir = dir }
	b = newBench(t, inDir)
	b.start(spec.Job{Command: []string{"make"}})
	began, err := event.StepStarted.Read(b.hear(event.StepStarted.Subject))
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	return newBench(t, inDir), began
}

// TestALogIsFoundWhileItsJobIsTakenUp asks for it after a start, before the room is at work.
func TestALogIsFoundWhileItsJobIsTakenUp(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b, began := restarted(t, dir)
		get := func(path string) int {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			w := httptest.NewRecorder()
			b.mux.ServeHTTP(w, r.WithContext(authz.With(r.Context(), authz.Principal{Sub: "ann", Tenant: "acme"})))
			return w.Code
		}
		if code := get("/logs/exe_of_nobody"); code != http.StatusNotFound {
			t.Errorf("of nobody: %d", code)
		}
		found := make(chan int)
		go func() { found <- get("/logs/" + string(began.Exec)) }()
		synctest.Wait()
		stop := b.work()
		if code := <-found; code != http.StatusOK {
			t.Errorf("of a job that is taken up: %d", code)
		}
		stop()
		b.Close()
	})
}

// TestAnAttemptThatWasLeftEndsOnce has the event that began an attempt come again after a
// restart, before the room takes up what was left: it is taken up by that.
func TestAnAttemptThatWasLeftEndsOnce(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b, began := restarted(t, dir)
		b.start(spec.Job{Command: []string{"make"}})
		synctest.Wait()
		b.w.end(began.Exec)
		b.hear(event.StepCompleted.Subject)
		synctest.Wait()
		if err := b.Room.call("acme", began.Job, began.Attempt, codeLost, "its worker has ended"); err != nil {
			t.Fatal(err)
		}
		stop := b.work()
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		stop()
		b.Close()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, e := range b.said {
			if e.Subject == event.StepFailed.Subject {
				t.Errorf("it ended once more: %s", e.Data)
			}
		}
	})
}

// TestWhatWasKeptOfAStepIsTold ends a worker together with the process that followed its
// step: what that one had of the log is all that there is.
func TestWhatWasKeptOfAStepIsTold(t *testing.T) {
	for _, killed := range []bool{false, true} {
		first, second := t.TempDir(), t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, func(c *Config) { c.Dir = first })
			b.w.log = logframe.Append(nil, logframe.Frame{Stream: logframe.Stdout, Time: time.Now(), Text: []byte("half of it\n")})
			b.start(spec.Job{Command: []string{"make"}})
			began, _ := event.StepStarted.Read(b.hear(event.StepStarted.Subject))
			if !killed {
				b.Close()
			}
			time.Sleep(6 * time.Second) // in which one that lives saves what it has
			synctest.Wait()
			if err := os.CopyFS(second, os.DirFS(first)); err != nil {
				t.Fatal(err)
			}
			b.Close()
			b = newBench(t, func(c *Config) { c.Dir = second })
			b.w.gone = true
			if err := b.Room.call("acme", began.Job, began.Attempt, codeLost, "its process ended"); err != nil {
				t.Fatal(err)
			}
			e := b.hear(event.StepFailed.Subject)
			d, _ := event.StepFailed.Read(e)
			if d.Exec != began.Exec || d.Code != codeLost || d.Message != "its process ended" || d.DurationMS < 6000 || d.DurationMS > 7000 {
				t.Errorf("killed %v: %+v", killed, d)
			}
			synctest.Wait()
			r, w := httptest.NewRequest(http.MethodGet, "/logs/"+string(began.Exec), nil), httptest.NewRecorder()
			b.mux.ServeHTTP(w, r.WithContext(authz.With(r.Context(), authz.Principal{Sub: "ann", Tenant: "acme"})))
			if w.Code != http.StatusOK || w.Body.String() != "half of it\n… the log ends here: its worker was lost\n" {
				t.Errorf("killed %v: %d %q", killed, w.Code, w.Body)
			}
			stop := b.work()
			synctest.Wait()
			stop()
			b.Close()
			b.mu.Lock()
			defer b.mu.Unlock()
			if n := len(b.said); n != 1 {
				t.Errorf("killed %v: %d events: %v", killed, n, b.said)
			}
		})
	}
}

// TestAWorkerThatFallsSilentIsLost stops workers that have all the time they want.
func TestAWorkerThatFallsSilentIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.start(spec.Job{Command: []string{"make"}})
		b.hear(event.StepStarted.Subject)
		b.w.mu.Lock()
		b.w.stopped = true
		b.w.mu.Unlock()
		time.Sleep((maySilent+1)*renewEvery + drain + time.Second)
		synctest.Wait()
		d, _ := event.StepFailed.Read(b.hear(event.StepFailed.Subject))
		if d.Code != codeLost || d.Message != errSilent.Error() || d.Exec == "" || d.Result.StdoutRef.ExecID != string(d.Exec) {
			t.Errorf("%+v", d)
		}
		b.Close()
	})
}

// TestBeginIsToldBeforeArtifactsAreKept has a step end at once, whose artifact takes
// long: until it is kept the step does not seem to wait.
func TestBeginIsToldBeforeArtifactsAreKept(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Keeper = shelf{} })
	kept := make(chan struct{})
	release := sync.OnceFunc(func() { close(kept) })
	defer release()
	b.w.file = func(context.Context) (io.ReadCloser, string, error) {
		<-kept
		return nil, "", agentclient.ErrRefused
	}
	b.w.end("exe_1_1_1")
	b.start(spec.Job{Command: []string{"make"}, Artifacts: []spec.Artifact{{Name: "app", Path: "app"}}})
	began, _ := event.StepStarted.Read(b.hear(event.StepStarted.Subject))
	release()
	if began.Over {
		t.Errorf("%+v", began)
	}
	b.hear(event.StepFailed.Subject)
}

// TestExecTellsWhatItFollowsFrom runs a command on a worker without a job.
func TestExecTellsWhatItFollowsFrom(t *testing.T) {
	b := newBench(t, nil)
	b.lend()
	var x Execution
	if code := b.call("/exec", map[string]any{"step_id": "mine", "worker_id": "wrk_2", "command": []string{"ls"}}, &x); code != http.StatusCreated {
		t.Fatalf("%d", code)
	}
	b.w.end(x.ID)
	for _, subject := range []string{event.StepStarted.Subject, event.StepCompleted.Subject} {
		e := b.hear(subject)
		var d struct {
			JobID string `json:"job_id"`
		}
		if err := json.Unmarshal(e.Data, &d); err != nil {
			t.Fatal(err)
		}
		if e.CorrelationID != "asked" || e.TraceParent != "traced" || e.Tenant != "acme" || d.JobID != "wrk_2" {
			t.Errorf("%s: %+v", subject, e)
		}
	}
}

// TestACommandIsNoPartOfAJobThatRunsElsewhere asks a worker without a job for a command
// under the names of jobs.
func TestACommandIsNoPartOfAJobThatRunsElsewhere(t *testing.T) {
	b := newBench(t, nil)
	b.lend()
	b.start(spec.Job{Command: []string{"make"}})
	begin, err := event.StepStarted.Read(b.hear(event.StepStarted.Subject))
	if err != nil {
		t.Fatal(err)
	}
	order := func(step, worker string, job ident.Job) map[string]any {
		return map[string]any{"step_id": step, "worker_id": worker, "job_id": job, "command": []string{"ls"}}
	}
	if code := b.call("/exec", order("a", "wrk_2", begin.Job), nil); code != http.StatusNotFound {
		t.Errorf("while the job runs on another worker: %d", code)
	}
	b.w.end(begin.Exec)
	b.hear(event.StepCompleted.Subject)
	if code := b.call("/exec", order("b", "wrk_2", begin.Job), nil); code != http.StatusNotFound {
		t.Errorf("after the job has ended: %d", code)
	}
	if code := b.call("/exec", order("c", "wrk_2", "a-label"), nil); code != http.StatusCreated {
		t.Errorf("under a name that no job has: %d", code)
	}
}

// TestTooManyReaders refuses a reader of a log for whom there is no place.
func TestTooManyReaders(t *testing.T) {
	b := newBench(t, nil)
	b.start(spec.Job{Command: []string{"make"}})
	began, _ := event.StepStarted.Read(b.hear(event.StepStarted.Subject))
	b.w.end(began.Exec)
	b.hear(event.StepCompleted.Subject)
	get := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/logs/"+string(began.Exec), nil)
		b.mux.ServeHTTP(w, r.WithContext(authz.With(r.Context(), authz.Principal{Sub: "ann", Tenant: "acme"})))
		return w
	}
	if w := get(); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for {
		if _, ok := b.logs.Reader(); !ok {
			break
		}
	}
	if w := get(); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}

// TestLongCommandKeepsItsWorker runs a command for longer than a worker lives that
// nobody calls.
func TestLongCommandKeepsItsWorker(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.Dir = dir })
		b.lend()
		var x Execution
		if code := b.call("/exec", map[string]any{"step_id": "mine", "worker_id": "wrk_2", "command": []string{"sleep", "600"}}, &x); code != http.StatusCreated {
			t.Fatalf("%d", code)
		}
		time.Sleep(10 * time.Minute) // of the bubble's time
		b.w.end(x.ID)
		b.hear(event.StepCompleted.Subject)
		b.w.mu.Lock()
		defer b.w.mu.Unlock()
		if b.w.renewed < 50 {
			t.Errorf("its lease was renewed %d times", b.w.renewed)
		}
	})
}
