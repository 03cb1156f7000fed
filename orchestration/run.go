package orchestration

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

// A Run is one run of a pipeline, as the API shows it.
type Run struct {
	ID          ident.Run      `json:"run_id"`
	Tenant      ident.Tenant   `json:"tenant_id"`
	Pipeline    ident.Pipeline `json:"pipeline_id"`
	Version     int            `json:"pipeline_version"`
	Name        string         `json:"name" doc:"The pipeline's"`
	Correlation string         `json:"correlation_id"`
	State       State          `json:"state" enum:"PENDING,RUNNING,SUCCEEDED,FAILED,CANCELLED,TERMINATED" doc:"The aggregate of its jobs' states"`
	Attempts    int            `json:"attempts"`
	Jobs        []Member       `json:"jobs" nullable:"false"`
	Undoing     []Undo         `json:"compensations,omitempty" nullable:"false" doc:"What is undone, in this order"`
	Owner       string         `json:"owner,omitempty"`
	Created     time.Time      `json:"created_at"`
	Finished    *time.Time     `json:"finished_at,omitempty"`
}

// A Member is a job of a run.
type Member struct {
	Name  string    `json:"name"`
	Job   ident.Job `json:"job_id"`
	Needs []string  `json:"needs,omitempty" nullable:"false"`
	State State     `json:"state,omitempty"`
	// Filled in where a run is read: its row does not hold what its jobs' rows do.
	Failure *Failure `json:"failure,omitempty" doc:"Why it ended badly, or was cancelled"`
}

// An Undo is one compensation of a run.
type Undo struct {
	Name  string    `json:"name" doc:"Of the job that is undone"`
	Job   ident.Job `json:"job_id" doc:"The job that is undone"`
	By    ident.Job `json:"by_job_id" doc:"The job that undoes it"`
	State State     `json:"state" doc:"PENDING until its turn comes"`
	// Filled in likewise.
	Failure *Failure `json:"failure,omitempty" doc:"Why it could not be undone"`
}

// A run is a Run with what only this room needs of it.
type run struct {
	Run
	Env   map[string]string      `json:"env,omitempty"`
	Steps map[string][]spec.Step `json:"compensate,omitempty"` // by the job's name
	Trace string                 `json:"traceparent,omitempty"`
}

func (r *run) about(twist string, now time.Time) event.About {
	return event.About{Tenant: r.Tenant, Key: string(r.ID), Twist: twist, Correlation: r.Correlation, TraceParent: r.Trace, At: now}
}

// version is what artifacts bear that were given none: each try of a run has its
// own, for what it makes is seldom what the try before has made.
func (r *run) version() string {
	if r.Attempts == 1 {
		return string(r.ID)
	}
	n := "." + strconv.Itoa(r.Attempts)
	return string(r.ID[:min(len(r.ID), ident.MaxLen-len(n))]) + n
}

func (r *run) moved() event.RunMoved {
	return event.RunMoved{Run: r.ID, Pipeline: r.Pipeline, Version: r.Version, State: string(r.State), Attempt: r.Attempts}
}

func (r *run) began(now time.Time) event.Event {
	d := r.moved()
	for _, m := range r.Jobs {
		d.Jobs = append(d.Jobs, event.RunJob{Job: m.Job, Name: m.Name, Needs: m.Needs})
	}
	return event.RunStarted.Event(r.about(strconv.Itoa(r.Attempts), now), d)
}

func (r *run) ended(now time.Time) event.Event {
	return event.RunEnded.Event(r.about(strconv.Itoa(r.Attempts), now), r.moved())
}

func (r *run) undone(k event.Kind[event.Compensation], u Undo, now time.Time) event.Event {
	return k.Event(r.about(strconv.Itoa(r.Attempts)+"."+string(u.By), now),
		event.Compensation{Run: r.ID, Job: u.Job, By: u.By, Attempt: r.Attempts})
}

// aggregate returns the state of a run with jobs in these states.
func aggregate(states map[string]State) State {
	counts := map[State]int{}
	for _, s := range states {
		counts[s]++
	}
	switch {
	case counts[Pending] == len(states):
		return Pending
	case counts[Pending]+counts[Scheduled]+counts[Running] > 0:
		return Running
	case counts[Failed] > 0:
		return Failed
	case counts[Terminated] > 0:
		return Terminated
	case counts[Cancelled] > 0:
		return Cancelled
	}
	return Succeeded
}

// A decision is what follows from the states of a run's jobs.
type decision struct {
	release []string          // jobs that have everything they need
	skip    map[string]string // jobs that never will, and the job that is to blame
}

// walk decides what is next in a graph: waiting are the jobs that were not asked
// for yet, states those of all jobs.
func walk(members []Member, states map[string]State, waiting map[string]bool) decision {
	d := decision{skip: map[string]string{}}
	states = maps.Clone(states)
	for again := true; again; { // a skipped job makes those that need it skip, too
		again = false
		for _, m := range members {
			if !waiting[m.Name] || d.skip[m.Name] != "" {
				continue
			}
			for _, need := range m.Needs {
				if s := states[need]; s.ended() && s != Succeeded {
					d.skip[m.Name], states[m.Name], again = need, Cancelled, true
					break
				}
			}
		}
	}
	for _, m := range members {
		ready := waiting[m.Name] && d.skip[m.Name] == "" &&
			!slices.ContainsFunc(m.Needs, func(n string) bool { return states[n] != Succeeded })
		if ready {
			d.release = append(d.release, m.Name)
		}
	}
	return d
}

// rerun returns the jobs that another try of a run has to run: those that did
// not succeed or were undone, and whatever needs one of these.
func rerun(members []Member, states map[string]State, undone map[string]bool) map[string]bool {
	again := map[string]bool{}
	for _, m := range members {
		if states[m.Name] != Succeeded || undone[m.Name] {
			again[m.Name] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for _, m := range members {
			if !again[m.Name] && slices.ContainsFunc(m.Needs, func(n string) bool { return again[n] }) {
				again[m.Name], grown = true, true
			}
		}
	}
	return again
}

// undoing returns what a failed run has to undo, last finished first.
func undoing(members []*job, steps map[string][]spec.Step) []*job {
	var out []*job
	for _, j := range members {
		if j.State == Succeeded && j.Undoes == "" && len(steps[j.Name]) > 0 {
			out = append(out, j)
		}
	}
	slices.SortFunc(out, func(a, b *job) int {
		if c := b.Finished.Compare(*a.Finished); c != 0 {
			return c
		}
		return cmp.Compare(b.Name, a.Name)
	})
	return out
}
