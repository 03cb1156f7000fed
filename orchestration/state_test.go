package orchestration

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

var allStates = []State{Pending, Scheduled, Running, Succeeded, Failed, Cancelled, Terminated}

// contractRows are job_transitions of the platform's contract (contract.yaml,
// table 3), a row for each pair of states.
var contractRows = []string{
	"PENDING SCHEDULED AssignmentCreated",
	"SCHEDULED RUNNING WorkerCreated",
	"RUNNING SUCCEEDED last step completed",
	"RUNNING FAILED a step failed for good",
	"RUNNING PENDING StepFailed, retryable, attempts left",
	"PENDING CANCELLED cancel",
	"SCHEDULED CANCELLED cancel",
	"RUNNING CANCELLED cancel",
	"SCHEDULED TERMINATED the worker ended or was lost, unasked",
	"RUNNING TERMINATED the worker ended or was lost, unasked",
	"TERMINATED PENDING attempts left",
}

func TestMovesAreTheContracts(t *testing.T) {
	var got []string
	for _, m := range moves {
		for _, from := range m.from {
			got = append(got, fmt.Sprintf("%s %s %s", from, m.to, m.on))
		}
	}
	if !slices.Equal(got, contractRows) {
		t.Errorf("the table is\n%q, want\n%q", got, contractRows)
	}
}

func TestNoOtherMoveIsAllowed(t *testing.T) {
	allowed := map[string]bool{}
	for _, m := range moves {
		for _, from := range m.from {
			allowed[string(from+" "+m.to)] = true
		}
	}
	for _, from := range allStates {
		for _, to := range allStates {
			if got := may(from, to) == nil; got != allowed[string(from+" "+to)] {
				t.Errorf("may(%s, %s) is %v", from, to, got)
			}
			j := &job{Job: Job{State: from}}
			if err := j.to(to, j.Created); (err == nil) != allowed[string(from+" "+to)] || err != nil && j.State != from {
				t.Errorf("from %s to %s: %v, and the job is %s", from, to, err, j.State)
			}
		}
	}
}

func TestEndStates(t *testing.T) {
	for _, s := range allStates {
		want := slices.Contains([]State{Succeeded, Failed, Cancelled, Terminated}, s)
		if s.ended() != want {
			t.Errorf("%s.ended() is %v", s, s.ended())
		}
	}
}

// TestTheSpecificationsRetriesCountRuns says how many times a job runs whose worker
// is lost each time, or whose step fails each time.
func TestTheSpecificationsRetriesCountRuns(t *testing.T) {
	for name, fail := range map[string]func(h *house, id ident.Job, attempt int){
		"lost": func(h *house, id ident.Job, n int) {
			must(h, event.WorkerFailed, id, event.WorkerLoss{Worker: "w1", Job: id, Attempt: n, Reason: "gone"})
		},
		"failed": func(h *house, id ident.Job, n int) {
			must(h, event.StepFailed, id, event.StepFault{Job: id, Exec: "x1", Attempt: n, Try: 1, Code: "exit", Retryable: true, Last: true, Result: spec.ExecResult{ExitCode: 1}})
			must(h, event.WorkerTerminated, id, event.WorkerEnd{Worker: "w1", Job: id, Attempt: n})
		},
	} {
		for _, retries := range []int{0, 1, 3} {
			t.Run(fmt.Sprintf("%s, retries %d", name, retries), func(t *testing.T) {
				t.Parallel()
				h := newHouse(t)
				h.want(201, "POST", "/jobs", fmt.Sprintf(`{"job_id":"j","spec":{"command":["x"],"retries":%d,"retry_backoff_ms":1}}`, retries), nil)
				runs := 0
				for ; !h.job("j").over() && runs < 10; runs++ {
					n := h.job("j").Attempts
					h.run("j")
					fail(h, "j", n)
					h.later(spec.MaxBackoffMS * 1e6)
				}
				if runs != retries+1 {
					t.Errorf("it ran %d times", runs)
				}
			})
		}
	}
}

func TestAnAttemptThatNeverRanIsPlacedAnew(t *testing.T) {
	h := newHouse(t)
	h.want(201, "POST", "/jobs", `{"job_id":"j","spec":{"command":["x"],"retry_backoff_ms":1}}`, nil)
	places := 0
	for ; !h.job("j").over() && places < 20; places++ {
		n := h.job("j").Attempts
		must(h, event.AssignmentCreated, "j", event.Assignment{Assignment: "a", Job: "j", Node: "n1", Attempt: n})
		must(h, event.WorkerFailed, "j", event.WorkerLoss{Worker: "w1", Job: "j", Attempt: n, Reason: "no capacity"})
	}
	if j := h.job("j"); places != maxPlacements+1 || j.State != Terminated || j.Failure.Code != "lost" {
		t.Errorf("placed %d times, then %s: %+v", places, j.State, j.Failure)
	}
}

// TestAJobThatNobodyEndsIsFailedAfterItsTimeout has execution say nothing.
func TestAJobThatNobodyEndsIsFailedAfterItsTimeout(t *testing.T) {
	h := newHouse(t)
	h.want(201, "POST", "/jobs", `{"job_id":"j","spec":{"command":["x"],"timeout_ms":90000}}`, nil)
	h.run("j")
	h.room.alive.Away = time.Minute // before this process there was nobody, and execution has news
	h.later(90*time.Second + overdue + time.Minute/2)
	if _, err := h.room.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if j := h.job("j"); j.State != Running {
		t.Errorf("while its end may be told yet, it is %s: %+v", j.State, j.Failure)
	}
	h.later(time.Minute)
	if _, err := h.room.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if j := h.job("j"); j.State != Failed || j.Failure.Code != "job_timeout" || j.Failure.Message != "the job ran longer than its timeout of 1m30s" {
		t.Errorf("it is %s: %+v", j.State, j.Failure)
	}
}
