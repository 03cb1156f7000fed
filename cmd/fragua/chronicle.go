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
	workers map[ident.Worker]bool // that have not ended
	steps   map[try][]ident.Step  // of attempts that began
	ended   map[tryOfStep]bool    // steps of attempts
	due     map[tryOfStep]bool    // those that must have ended, as their jobs have
}

type (
	try struct {
		job ident.Job
		n   int
	}
	tryOfStep struct {
		try
		step ident.Step // empty: the one that failed, whichever that is
	}
)

func newChronicle(run string) *chronicle {
	return &chronicle{
		run: ident.Run(run), mine: map[string]bool{run: true}, workers: map[ident.Worker]bool{},
		steps: map[try][]ident.Step{}, ended: map[tryOfStep]bool{}, due: map[tryOfStep]bool{},
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
		c.ended[tryOfStep{try: try{d.Job, d.Attempt}}] = true
	}
	if d, err := event.JobCompleted.Read(e); err == nil {
		t := try{d.Job, d.Attempt}
		for _, s := range c.steps[t] {
			c.due[tryOfStep{t, s}] = true
		}
	}
	if d, err := event.JobFailed.Read(e); err == nil && ofStep[d.Code] {
		c.due[tryOfStep{try: try{d.Job, d.Attempt}}] = true
	}
	return true
}

// ofStep are the codes of a job's failure that a step has told, too.
var ofStep = map[string]bool{"exit": true, "timeout": true, "start": true}

// whole says whether nothing more of the run is to come.
func (c *chronicle) whole() bool {
	if !c.over || len(c.workers) > 0 {
		return false
	}
	for s := range c.due {
		if !c.ended[s] {
			return false
		}
	}
	return true
}
