package orchestration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/bus"
)

// A signal is something that a room may be told about a job, at any time and in
// any order.
type signal struct {
	kind      string
	attempt   int
	index     int
	try       int
	retryable bool
	last      bool
	code      string
}

var signals = []string{"assigned", "ready", "terminated", "lost", "began", "completed", "failed", "cancel"}

// drawSignal draws one that is likely to move the job, or is late, or early.
func drawSignal(t *rapid.T, j *job) signal {
	likely := map[State][]string{
		Pending: {"assigned", "assigned", "assigned", "terminated", "lost"}, Scheduled: {"ready", "ready", "ready"},
		Running: {"began", "completed", "completed", "completed", "failed", "failed"},
	}[j.State]
	s := signal{
		kind:    rapid.SampledFrom(append(likely, signals...)).Draw(t, "signal"),
		attempt: j.Attempts, index: rapid.SampledFrom([]int{0, 0, 0, 1, 1, -1, 2}).Draw(t, "index"), try: rapid.SampledFrom([]int{1, 1, 1, 2}).Draw(t, "try"),
		retryable: rapid.Bool().Draw(t, "retryable"), last: rapid.IntRange(0, 3).Draw(t, "last") > 0,
		code: rapid.SampledFrom([]string{"exit", "timeout", "lost"}).Draw(t, "code"),
	}
	if s.kind == "cancel" && rapid.IntRange(0, 7).Draw(t, "really") > 0 {
		s.kind = "began"
	}
	if rapid.IntRange(0, 4).Draw(t, "of another attempt") == 0 {
		s.attempt = rapid.IntRange(0, j.Attempts+1).Draw(t, "attempt")
	}
	return s
}

func (h *house) signal(id ident.Job, s signal) error {
	at := h.clock()
	exec := ident.Exec(fmt.Sprintf("x%d.%d.%d", s.attempt, s.index, s.try))
	worker := ident.Worker(fmt.Sprintf("w%d", s.attempt))
	switch s.kind {
	case "assigned":
		return tell(h, event.AssignmentCreated, id, event.Assignment{Assignment: "a", Job: id, Node: "n1", Attempt: s.attempt})
	case "ready":
		return tell(h, event.WorkerCreated, id, event.WorkerMade{Worker: worker, Job: id, Attempt: s.attempt, Address: "a:1"})
	case "terminated":
		return tell(h, event.WorkerTerminated, id, event.WorkerEnd{Worker: worker, Job: id, Attempt: s.attempt})
	case "lost":
		return tell(h, event.WorkerFailed, id, event.WorkerLoss{Worker: worker, Job: id, Attempt: s.attempt, Reason: "gone"})
	case "began":
		return tell(h, event.StepStarted, id, event.StepBegin{Job: id, Exec: exec, Attempt: s.attempt, Index: s.index, Try: s.try, At: at})
	case "completed":
		return tell(h, event.StepCompleted, id, event.StepEnd{Job: id, Exec: exec, Attempt: s.attempt, Index: s.index, Try: s.try, At: at})
	case "failed":
		return tell(h, event.StepFailed, id, event.StepFault{
			Job: id, Exec: exec, Attempt: s.attempt, Index: s.index, Try: s.try, At: at, Code: s.code, Retryable: s.retryable, Last: s.last,
		})
	}
	code := h.call("POST", "/jobs/"+string(id)+"/cancel", "", nil)
	if code != 200 && code != 409 {
		return fmt.Errorf("cancel: %d", code)
	}
	return nil
}

// told are the events that have to tell of a move; PENDING → SCHEDULED is told by
// AssignmentCreated itself.
var told = map[State]string{
	Running: "JobStarted", Succeeded: "JobCompleted", Failed: "JobFailed", Cancelled: "JobCancelled", Terminated: "JobTerminated", Pending: "JobRetrying",
}

// life watches one job, and holds what was promised against what happens.
type life struct {
	h       *house
	t       *rapid.T
	id      ident.Job
	gone    map[int]bool    // attempts whose worker's end was taken
	ids     map[string]bool // of events that were said
	started map[int]bool
	asked   map[int]bool // attempts that scheduling was asked to place
}

// step does something to the job and compares it with how it was before.
func (l *life) step(name string, do func() error) {
	before := l.h.job(l.id)
	n := len(l.h.heard(0))
	if err := do(); err != nil && !errors.Is(err, bus.ErrLater) {
		l.t.Fatalf("%s in %s: %v", name, before.State, err)
	}
	after, events := l.h.job(l.id), l.h.heard(n)
	l.moved(name, before, after, events)
	for _, e := range events {
		l.said(e)
	}
	if after.Attempts > after.Spec.Retries+1+after.Placements || after.Placements > maxPlacements {
		l.t.Fatalf("%s: attempt %d of a job with %d retries, %d times placed anew", name, after.Attempts, after.Spec.Retries, after.Placements)
	}
	if len(l.started) > after.Spec.Retries+1 {
		l.t.Fatalf("%s: it ran %d times, with %d retries", name, len(l.started), after.Spec.Retries)
	}
}

func (l *life) moved(name string, before, after *job, events []event.Event) {
	if before.over() {
		if before.State != after.State || before.Attempts != after.Attempts || !before.Finished.Equal(*after.Finished) || (before.Result == nil) != (after.Result == nil) {
			l.t.Fatalf("%s moved an ended job from %s to %s", name, before.State, after.State)
		}
		return
	}
	if before.State == after.State && before.Attempts == after.Attempts {
		return
	}
	direct := may(before.State, after.State)
	if after.State == Pending && before.State != Pending && direct != nil { // by way of TERMINATED
		direct = errors.Join(may(before.State, Terminated), may(Terminated, Pending))
	}
	if direct != nil {
		l.t.Fatalf("%s: %v", name, direct)
	}
	if want := told[after.State]; want != "" && !slices.ContainsFunc(events, func(e event.Event) bool { return e.Type == want }) {
		l.t.Fatalf("%s moved the job from %s to %s, and %s was not said", name, before.State, after.State, want)
	}
}

func (l *life) said(e event.Event) {
	l.ids[string(e.ID)] = true
	switch e.Type {
	case "JobStarted":
		d, err := event.JobStarted.Read(e)
		if err != nil {
			l.t.Fatal(err)
		}
		l.started[d.Attempt] = true
	case "JobRequested":
		d, err := event.JobRequested.Read(e)
		if err != nil {
			l.t.Fatal(err)
		}
		l.asked[d.Attempt] = true
		if d.Attempt > 1 && !l.gone[d.Attempt-1] {
			l.t.Fatalf("attempt %d was asked for while the worker of the one before may live", d.Attempt)
		}
	}
}

// tell gives the job a signal, and the same once more at once.
func (l *life) tell(s signal) {
	if s.kind == "assigned" && !l.asked[s.attempt] {
		return // the one thing that cannot come: scheduling answers questions
	}
	l.step(s.kind, func() error {
		err := l.h.signal(l.id, s)
		if err == nil && (s.kind == "terminated" || s.kind == "lost") {
			l.gone[s.attempt] = true
		}
		return err
	})
	before, n := l.h.job(l.id), len(l.h.heard(0))
	l.step(s.kind+" again", func() error { return l.h.signal(l.id, s) })
	after := l.h.job(l.id)
	before.Round, before.Due = after.Round, after.Due // how often, and until when
	if a, b := bytesOf(l.h.t, before), bytesOf(l.h.t, after); !bytes.Equal(a, b) {
		l.t.Fatalf("%s twice changed the job from\n%s\nto\n%s", s.kind, a, b)
	}
	for _, e := range l.h.heard(n) {
		if !l.ids[string(e.ID)] && !strings.Contains(string(e.ID), ".r") {
			l.t.Fatalf("%s twice said %s", s.kind, e.ID)
		}
	}
}

// TestALifeKeepsItsPromises gives jobs all kinds of signals in any order, twice,
// late and early, and lets time pass.
func TestALifeKeepsItsPromises(t *testing.T) {
	h := newHouse(t)
	n := 0
	ends := map[State]int{}
	rapid.Check(t, func(t *rapid.T) {
		n++
		l := &life{h: h, t: t, id: ident.Job(fmt.Sprintf("j%d", n)), gone: map[int]bool{}, ids: map[string]bool{}, started: map[int]bool{}, asked: map[int]bool{1: true}}
		steps := strings.Repeat(`{"run":"x"},`, rapid.IntRange(1, 2).Draw(t, "steps"))
		body := fmt.Sprintf(`{"job_id":%q,"spec":{"steps":[%s],"retries":%d,"retry_backoff_ms":%d,"timeout_ms":60000}}`,
			l.id, steps[:len(steps)-1], rapid.IntRange(0, 2).Draw(t, "retries"), rapid.SampledFrom([]int{1, 60_000}).Draw(t, "backoff"))
		if code := h.call("POST", "/jobs", body, nil); code != 201 {
			t.Fatalf("POST /jobs: %d", code)
		}
		for range rapid.IntRange(1, 60).Draw(t, "signals") {
			if rapid.IntRange(0, 4).Draw(t, "time passes") == 0 {
				h.later(time.Duration(rapid.IntRange(0, 200).Draw(t, "seconds")) * time.Second)
				l.step("the reconciler", func() error {
					return h.room.change(context.Background(), "acme", l.id, func(j *job, now time.Time) ([]event.Event, error) { return j.refresh(now, overdue) })
				})
				continue
			}
			l.tell(drawSignal(t, h.job(l.id)))
		}
		ends[h.job(l.id).State]++
		finals := 0
		for _, e := range h.heard(0) {
			if final := slices.Contains([]string{"JobCompleted", "JobFailed", "JobCancelled"}, e.Type) || e.Type == "JobTerminated" && bytes.Contains(e.Data, []byte(`"final":true`)); final && e.Key == string(l.id) && !strings.Contains(string(e.ID), ".r") {
				finals++
			}
		}
		if over := h.job(l.id).over(); over && finals != 1 || !over && finals != 0 {
			t.Fatalf("its end was said %d times, and it is %s", finals, h.job(l.id).State)
		}
	})
	for _, s := range []State{Succeeded, Failed, Cancelled, Terminated} {
		if ends[s] == 0 && !t.Failed() {
			t.Errorf("no job ended %s: the signals are drawn too narrowly", s)
		}
	}
}
