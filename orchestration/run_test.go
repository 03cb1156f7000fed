package orchestration

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

// aRun begins a run of a pipeline with these jobs.
func aRun(t *testing.T, jobs string) (*house, *Run) {
	h := newHouse(t)
	h.want(201, "POST", "/pipelines", `{"pipeline_id":"p","spec":{"name":"p","jobs":{`+jobs+`}}}`, nil)
	r := &Run{}
	h.want(201, "POST", "/pipelines/p/runs", `{"run_id":"r"}`, r)
	return h, r
}

// member returns the job of a run by its name, as it is now.
func (h *house) member(name string) ident.Job {
	h.t.Helper()
	var r Run
	h.want(200, "GET", "/runs/r", "", &r)
	for _, m := range r.Jobs {
		if m.Name == name {
			return m.Job
		}
	}
	h.t.Fatalf("no job %s", name)
	return ""
}

// do runs a job of the run to its end, a minute later.
func (h *house) do(name string, well bool) {
	h.t.Helper()
	h.later(time.Minute)
	id := h.member(name)
	if n := h.count("ci.job.requested", string(id)); n != 1 {
		h.t.Fatalf("%s was asked for %d times", name, n)
	}
	h.run(id)
	h.end(id, well)
}

func (h *house) runState() *Run {
	h.t.Helper()
	r := &Run{}
	h.want(200, "GET", "/runs/r", "", r)
	return r
}

const diamond = `"a":{"command":["x"]},"b":{"command":["x"],"needs":["a"]},"c":{"command":["x"],"needs":["a"]},"d":{"command":["x"],"needs":["b","c"]},"e":{"command":["x"]}`

func TestARunGoesOnWhereItsNeedsAreMet(t *testing.T) {
	h, _ := aRun(t, diamond)
	for _, name := range []string{"a", "c", "b", "d", "e"} {
		h.do(name, true)
	}
	if r := h.runState(); r.State != Succeeded || h.count("ci.run.ended", "r") != 1 || h.room.live.Load() != 0 {
		t.Errorf("the run is %s; its end was said %d times; %d jobs are said to live", r.State, h.count("ci.run.ended", "r"), h.room.live.Load())
	}
	h.want(409, "POST", "/runs/r/retry", "", nil)
}

// TestARunWhoseFirstJobRunsIsRunningEverywhere looks at it in every way.
func TestARunWhoseFirstJobRunsIsRunningEverywhere(t *testing.T) {
	h, _ := aRun(t, diamond)
	states := func() []State {
		var runs struct {
			Items []Run `json:"items"`
		}
		var pipelines struct {
			Items []Pipeline `json:"items"`
		}
		var p Pipeline
		h.want(200, "GET", "/pipelines/p/runs", "", &runs)
		h.want(200, "GET", "/pipelines", "", &pipelines)
		h.want(200, "GET", "/pipelines/p", "", &p)
		return []State{h.runState().State, runs.Items[0].State, pipelines.Items[0].State, p.State}
	}
	if got := states(); !slices.Equal(got, []State{Pending, Pending, Pending, Pending}) {
		t.Errorf("before: %v", got)
	}
	h.run(h.member("a"))
	if got := states(); !slices.Equal(got, []State{Running, Running, Running, Running}) {
		t.Errorf("at work: %v", got)
	}
	h.end(h.member("a"), true)
	if got := states(); !slices.Equal(got, []State{Running, Running, Running, Running}) {
		t.Errorf("after the first: %v", got)
	}
}

func TestAFailureSkipsWhatNeedsItAndARetryRunsThatAgain(t *testing.T) {
	h, first := aRun(t, diamond)
	h.do("a", true)
	h.do("b", false)
	var refused struct {
		Detail string `json:"detail"`
	}
	h.want(409, "POST", "/jobs/"+string(h.member("b"))+"/retry", "", &refused)
	if !strings.Contains(refused.Detail, "fragua pipeline retry r,") || !strings.Contains(refused.Detail, "POST /runs/r/retry") {
		t.Errorf("a job of it alone: %s", refused.Detail)
	}
	h.do("c", true)
	h.want(409, "POST", "/runs/r/retry", "", nil) // e has not ended
	h.do("e", true)
	if r, d := h.runState(), h.job(h.member("d")); r.State != Failed || d.State != Cancelled {
		t.Fatalf("the run is %s, d is %s", r.State, d.State)
	}
	n := len(h.heard(0))
	var again Run
	h.want(200, "POST", "/runs/r/retry", "", &again)
	h.want(409, "POST", "/runs/r/retry", "", nil)
	var asked []string
	for _, e := range h.heard(n) {
		if e.Type == "JobRequested" {
			asked = append(asked, e.Key)
		}
	}
	if !slices.Equal(asked, []string{string(h.member("b"))}) {
		t.Errorf("asked for %v", asked)
	}
	for i, m := range again.Jobs {
		changed := m.Job != first.Jobs[i].Job
		if want := m.Name == "b" || m.Name == "d"; changed != want {
			t.Errorf("%s runs again: %v", m.Name, changed)
		}
		if old := h.job(first.Jobs[i].Job); changed && (old.RetriedBy != m.Job || h.job(m.Job).RetryOf != old.ID) {
			t.Errorf("%s does not say who follows whom", m.Name)
		}
	}
	h.do("b", true)
	h.do("d", true)
	if r := h.runState(); r.State != Succeeded || r.Attempts != 2 || h.count("ci.run.ended", "r") != 2 {
		t.Errorf("the run is %s in its try %d", r.State, r.Attempts)
	}
}

// TestARunTellsWhyItsJobsEndedBadly reads it from the jobs, and keeps it in no other row.
func TestARunTellsWhyItsJobsEndedBadly(t *testing.T) {
	h, _ := aRun(t, undoable)
	why := func(name string) *Failure {
		t.Helper()
		for _, m := range h.runState().Jobs {
			if m.Name == name {
				return m.Failure
			}
		}
		t.Fatalf("no job %s", name)
		return nil
	}
	fail := func(id ident.Job, message string, last bool) {
		h.run(id)
		must(h, event.StepFailed, id, event.StepFault{Job: id, Exec: "x1", Attempt: h.job(id).Attempts, Try: 1, At: h.clock(),
			Code: "exit", Last: true, Retryable: !last, Message: message, Result: spec.ExecResult{ExitCode: 3}})
	}
	h.do("a", true)
	h.do("c", true)
	h.later(time.Minute)
	fail(h.member("b"), "it ended with exit code 3", true)
	if got := why("b"); got == nil || *got != (Failure{"exit", "it ended with exit code 3", false}) {
		t.Errorf("b: %+v", got)
	}
	if got := why("d"); got == nil || *got != (Failure{Code: "cancelled", Message: "it needs b, which did not succeed"}) {
		t.Errorf("d: %+v", got)
	}
	if a, c := why("a"), why("c"); a != nil || c != nil {
		t.Errorf("a: %+v, c: %+v, which ended well", a, c)
	}
	// What is undone says so, too.
	undo := h.runState().Undoing[0]
	fail(undo.By, "it is there for good", true)
	if u := h.runState().Undoing[0]; u.Name != "c" || u.Failure == nil || u.Failure.Message != "it is there for good" {
		t.Errorf("undone: %+v", u)
	}
	h.undo(true)
	var stored string
	if err := h.room.db.QueryRow(t.Context(), `SELECT body FROM run WHERE id = 'r'`).Scan(&stored); err != nil || strings.Contains(stored, "failure") {
		t.Errorf("the run's row is %s, %v", stored, err)
	}
	// The next try has not failed.
	h.want(200, "POST", "/runs/r/retry", "", nil)
	for _, name := range []string{"a", "b", "c", "d"} {
		if got := why(name); got != nil {
			t.Errorf("tried again, %s: %+v", name, got)
		}
	}
}

const undoable = `"a":{"command":["x"],"compensate":[{"run":"undo a"}]},"b":{"command":["x"],"needs":["a"],"compensate":[{"run":"undo b"}]},
	"c":{"command":["x"],"needs":["a"],"compensate":[{"run":"undo c"}]},"d":{"command":["x"],"needs":["b","c"],"compensate":[{"run":"undo d"}]}`

// undo lets the compensation that is asked for end, and returns what it undid.
func (h *house) undo(well bool) string {
	h.t.Helper()
	h.later(time.Minute)
	for _, u := range h.runState().Undoing {
		if u.State.ended() {
			continue
		}
		h.run(u.By)
		h.end(u.By, well)
		h.end(u.By, well) // its end comes twice
		return u.Name
	}
	return ""
}

func TestWhatAFailedRunDidIsUndoneBackwardsAndOnce(t *testing.T) {
	h, _ := aRun(t, undoable)
	h.do("a", true)
	h.do("c", true)
	h.do("b", true)
	h.do("d", false)
	if r := h.runState(); r.State != Running || len(r.Undoing) != 3 {
		t.Fatalf("the run is %s and undoes %v", r.State, r.Undoing)
	}
	h.want(409, "POST", "/runs/r/retry", "", nil)
	h.want(409, "POST", "/runs/r/cancel", "", nil)
	var order []string
	for i := 0; h.runState().Finished == nil && i < 9; i++ {
		if n := h.room.live.Load(); n != 1 {
			t.Fatalf("%d jobs live while one is undone", n)
		}
		order = append(order, h.undo(i != 1))
	}
	if !slices.Equal(order, []string{"b", "c", "a"}) {
		t.Errorf("undone: %v", order)
	}
	r := h.runState()
	if r.State != Failed || h.count("ci.run.ended", "r") != 1 || h.room.live.Load() != 0 {
		t.Errorf("the run is %s", r.State)
	}
	for _, u := range r.Undoing {
		if n := h.count("ci.job.requested", string(u.By)); n != 1 {
			t.Errorf("%s was undone %d times", u.Name, n)
		}
	}
	if a, b := h.count("ci.compensation.completed", "r"), h.count("ci.compensation.failed", "r"); a != 2 || b != 1 {
		t.Errorf("%d were undone and %d were not", a, b)
	}
	// Another try does everything again: nothing of it is left.
	h.want(200, "POST", "/runs/r/retry", "", nil)
	h.do("a", true)
	if r := h.runState(); r.State != Running || len(r.Undoing) != 0 {
		t.Errorf("the run is %s and undoes %v", r.State, r.Undoing)
	}
}

func TestARunThatIsCalledOffEndsAllItsJobs(t *testing.T) {
	h, r := aRun(t, undoable)
	h.do("a", true)
	h.run(h.member("b"))
	h.want(200, "POST", "/runs/r/cancel", `{"reason":"no"}`, nil)
	h.want(200, "POST", "/runs/r/cancel", `{"reason":"no"}`, nil)
	if r := h.runState(); r.State != Cancelled || r.Undoing != nil || h.room.live.Load() != 0 {
		t.Errorf("the run is %s, undoes %v, and %d live", r.State, r.Undoing, h.room.live.Load())
	}
	for _, m := range r.Jobs[1:] {
		if j := h.job(m.Job); j.State != Cancelled || h.count("ci.job.cancelled", string(j.ID)) != 1 {
			t.Errorf("%s is %s", m.Name, j.State)
		}
	}
	must(h, event.WorkerTerminated, h.member("b"), event.WorkerEnd{Worker: "w1", Job: h.member("b"), Attempt: 1})
	if j := h.job(h.member("b")); j.State != Cancelled {
		t.Errorf("b is %s", j.State)
	}
}

// TestARetryOfANamedTryIsOne asks for it by many at once, and again when that try has
// failed, too.
func TestARetryOfANamedTryIsOne(t *testing.T) {
	h, _ := aRun(t, `"a":{"command":["false"]}`)
	h.do("a", false)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() { h.want(200, "POST", "/runs/r/retry", `{"attempts":1}`, nil) })
	}
	wg.Wait()
	h.do("a", false)
	h.want(200, "POST", "/runs/r/retry", `{"attempts":1}`, nil)
	if r := h.runState(); r.State != Failed || r.Attempts != 2 {
		t.Errorf("the run is %s in its try %d", r.State, r.Attempts)
	}
	h.want(409, "POST", "/runs/r/retry", `{"attempts":3}`, nil)
	h.want(200, "POST", "/runs/r/retry", `{"attempts":2}`, nil)
	if r := h.runState(); r.Attempts != 3 || r.Finished != nil {
		t.Errorf("the run is %s in its try %d", r.State, r.Attempts)
	}
}

func TestAllFaultsOfARunAreToldAtOnce(t *testing.T) {
	h, _ := aRun(t, `"a":{"command":["true"]}`)
	var p struct {
		Errors []struct{ Location string }
	}
	h.want(422, "POST", "/pipelines/p/runs", `{"run_id":"../x","env":{"A B":"x","FRAGUA_X":"y"}}`, &p)
	var at []string
	for _, e := range p.Errors {
		at = append(at, e.Location)
	}
	slices.Sort(at)
	if want := []string{"body.env.A B", "body.env.FRAGUA_X", "body.run_id"}; !slices.Equal(at, want) {
		t.Errorf("faults at %q, want %q", at, want)
	}
}

// TestNothingAsksForTheSameAsEmpty repeats orders in which what is not there was
// written as empty, or the other way round.
func TestNothingAsksForTheSameAsEmpty(t *testing.T) {
	h, _ := aRun(t, diamond)
	h.want(200, "POST", "/pipelines/p/runs", `{"run_id":"r","env":{},"jobs":[]}`, nil)
	h.want(201, "POST", "/pipelines/p/runs", `{"run_id":"s","env":{},"jobs":[]}`, nil)
	h.want(200, "POST", "/pipelines/p/runs", `{"run_id":"s"}`, nil)
	h.want(201, "POST", "/jobs", `{"job_id":"j","spec":{"command":["x"]},"tags":{}}`, nil)
	h.want(200, "POST", "/jobs", `{"job_id":"j","spec":{"command":["x"],"env":{}}}`, nil)
}
