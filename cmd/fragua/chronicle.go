package main

import (
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
)

// A chronicle is what has been heard of a run, and knows whether that is all. Rooms
// speak beside each other: the end of a run may come before that of its last step.
type chronicle struct {
	run     ident.Run
	mine    map[string]bool // keys of the run's events
	over    bool
	workers map[ident.Worker]bool    // that have not ended
	steps   map[try][]ident.Step     // of attempts that began
	ended   map[tryOfStep]bool       // steps of attempts
	failed  map[try]bool             // attempts of which a step failed
	missing map[try]func() (ok bool) // attempts that ended, and what has to be heard of them
}

type (
	try struct {
		job ident.Job
		n   int
	}
	tryOfStep struct {
		try
		step ident.Step
	}
)

func newChronicle(run string) *chronicle {
	return &chronicle{
		run: ident.Run(run), mine: map[string]bool{run: true}, workers: map[ident.Worker]bool{}, steps: map[try][]ident.Step{},
		ended: map[tryOfStep]bool{}, failed: map[try]bool{}, missing: map[try]func() bool{},
	}
}

// hear takes note of an event, and says whether it is one of the run.
func (c *chronicle) hear(e event.Event) bool {
	if d, err := event.RunStarted.Read(e); err == nil && d.Run == c.run {
		for _, j := range d.Jobs { // also those that will never be asked for
			c.mine[string(j.Job)] = true
		}
	}
	if d, err := event.JobRequested.Read(e); err == nil && d.Run == c.run {
		c.mine[string(d.Job)] = true
	}
	if !c.mine[e.Key] {
		return false
	}
	c.over = c.over || e.Subject == event.RunEnded.Subject
	if d, err := event.WorkerCreated.Read(e); err == nil {
		c.workers[d.Worker] = true
	}
	if d, err := event.WorkerTerminated.Read(e); err == nil {
		delete(c.workers, d.Worker)
	}
	if d, err := event.WorkerFailed.Read(e); err == nil {
		delete(c.workers, d.Worker)
	}
	if d, err := event.JobStarted.Read(e); err == nil {
		c.steps[try{d.Job, d.Attempt}] = d.Steps
	}
	if d, err := event.StepCompleted.Read(e); err == nil {
		c.ended[tryOfStep{try{d.Job, d.Attempt}, d.Step}] = true
	}
	if d, err := event.StepFailed.Read(e); err == nil {
		c.failed[try{d.Job, d.Attempt}] = true
	}
	if d, err := event.JobCompleted.Read(e); err == nil {
		t := try{d.Job, d.Attempt}
		c.missing[t] = func() bool {
			for _, s := range c.steps[t] {
				if !c.ended[tryOfStep{t, s}] {
					return false
				}
			}
			return true
		}
	}
	if d, err := event.JobFailed.Read(e); err == nil && ofStep[d.Code] {
		t := try{d.Job, d.Attempt}
		c.missing[t] = func() bool { return c.failed[t] }
	}
	for t, ok := range c.missing {
		if ok() {
			delete(c.missing, t)
		}
	}
	return true
}

// ofStep are the codes of a job's failure that a step has told, too.
var ofStep = map[string]bool{"exit": true, "timeout": true, "start": true}

// whole says whether nothing more of the run is to come.
func (c *chronicle) whole() bool { return c.over && len(c.workers) == 0 && len(c.missing) == 0 }
