package console

import (
	"fmt"
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
)

// TestJobsOfARunFromItsStart tells of a run, of which two jobs never have a turn, in
// every order.
func TestJobsOfARunFromItsStart(t *testing.T) {
	w := open(t, nil)
	began := made(w, event.RunStarted, "run_1", 1, event.RunMoved{Run: "run_1", Pipeline: "pip_1", State: pending, Attempt: 1, Jobs: []event.RunJob{
		{Job: "j1", Name: "a"}, {Job: "j2", Name: "b", Needs: []string{"a"}}, {Job: "j3", Name: "c", Needs: []string{"b"}}}})
	start := w.clock()
	what := []event.Event{began,
		made(w, event.JobRequested, "j1", 1, event.JobRequest{Job: "j1", Attempt: 1, Name: "a", Pipeline: "pip_1", Run: "run_1"}),
		made(w, event.JobFailed, "j1", 1, event.JobFault{Job: "j1", Attempt: 1, Final: true, Code: "exit"}),
		made(w, event.JobCancelled, "j2", 1, event.JobStop{Job: "j2", Attempt: 1, Reason: "it needs a", Run: "run_1"}),
		made(w, event.JobCancelled, "j3", 1, event.JobStop{Job: "j3", Attempt: 1, Reason: "it needs b", Run: "run_1"}),
	}
	w.hear(began)
	_, l := w.list("acme", "?pipeline_id=pip_1&run_id=run_1")
	if len(l.Items) != 3 {
		t.Fatalf("while the first waits: %+v", l.Items)
	}
	for _, j := range l.Items {
		if j.State != pending || j.Attempts != 1 || !j.Created.Equal(start) || j.Name == string(j.ID) {
			t.Errorf("while the first waits: %+v", j)
		}
	}
	n := 0
	var permute func(order, left []event.Event)
	permute = func(order, left []event.Event) {
		if len(left) == 0 {
			n++
			tenant := ident.Tenant(fmt.Sprint("t", n))
			for i := range order {
				order[i].Tenant = tenant
			}
			for range 2 {
				if err := w.Room.hear(t.Context(), order); err != nil {
					t.Fatal(err)
				}
			}
			_, l := w.list(string(tenant), "?pipeline_id=pip_1&run_id=run_1")
			got := ""
			for _, j := range l.Items {
				got += fmt.Sprint(j.Name, " ", j.State, " ", j.Created.Sub(start), "; ")
			}
			if got != "c CANCELLED 0s; b CANCELLED 0s; a FAILED 0s; " {
				t.Errorf("order %d: %s", n, got)
			}
			return
		}
		for i := range left {
			rest := append(append([]event.Event{}, left[:i]...), left[i+1:]...)
			permute(append(append([]event.Event{}, order...), left[i]), rest)
		}
	}
	permute(nil, what)
	if n != 120 {
		t.Errorf("%d orders", n)
	}
}

// TestARunThatIsTriedAgain keeps what is known of the jobs that it keeps.
func TestARunThatIsTriedAgain(t *testing.T) {
	w := open(t, nil)
	run := func(n int, second ident.Job) event.Event {
		return made(w, event.RunStarted, "run_1", n, event.RunMoved{Run: "run_1", Pipeline: "pip_1", Attempt: n,
			Jobs: []event.RunJob{{Job: "j1", Name: "a"}, {Job: second, Name: "b", Needs: []string{"a"}}}})
	}
	w.hear(run(1, "j2"), w.requested("j1", 1), w.started("j1", 1), w.done("j1", 1))
	first := w.clock()
	w.hear(made(w, event.JobFailed, "j2", 1, event.JobFault{Job: "j2", Attempt: 1, Final: true}))
	w.pass(time.Hour)
	w.hear(run(2, "j3"))
	_, l := w.list("acme", "?run_id=run_1")
	if ids(l) != "j3 j2 j1" || l.Items[0].State != pending || l.Items[0].Attempts != 1 || l.Items[2].State != succeeded || !l.Items[2].Finished.Equal(first) {
		t.Errorf("%+v", l.Items)
	}
}
