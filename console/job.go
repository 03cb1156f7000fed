package console

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
)

// The states of a job; the words are the blueprint's.
const (
	pending    = "PENDING"
	scheduled  = "SCHEDULED"
	running    = "RUNNING"
	succeeded  = "SUCCEEDED"
	failed     = "FAILED"
	cancelled  = "CANCELLED"
	terminated = "TERMINATED" // lost by the platform
)

// How far a job is within an attempt. What is said of a job counts when it is
// further than what was heard before.
const (
	stepRetrying  = iota // the attempt before has ended
	stepRequested        // PENDING
	stepScheduled
	stepStarted
	stepLost = 8  // TERMINATED, and JobRetrying follows
	stepOver = 15 // for good
	attempts = 16 // steps of one attempt
)

// A jobKey names a job.
type jobKey struct {
	tenant ident.Tenant
	id     ident.Job
}

// A job is what is known of a job. It is a value: hear returns the next one.
type job struct {
	jobKey
	name     string
	pipeline ident.Pipeline
	run      ident.Run
	state    string
	attempt  int
	progress int
	created  time.Time
	started  time.Time
	finished time.Time
	node     ident.Node
	worker   ident.Worker
	step     int
	steps    []string
	failure  failure
}

// A failure says why a job, or its last attempt, ended badly.
type failure struct {
	Code      string `json:"code"`
	Message   string `json:"message"`
	Retryable bool   `json:"retryable"`
}

// told is what any event about a job may say of it; the rest of an event's data
// is of no use here, and is not decoded.
type told struct {
	Job       ident.Job      `json:"job_id"`
	Name      string         `json:"name"`
	Pipeline  ident.Pipeline `json:"pipeline_id"`
	Run       ident.Run      `json:"run_id"`
	Attempt   int            `json:"attempt"`
	Node      ident.Node     `json:"node_id"`
	Worker    ident.Worker   `json:"worker_id"`
	Index     int            `json:"index"`
	Code      string         `json:"error_code"`
	Message   string         `json:"message"`
	Reason    string         `json:"reason"`
	Retryable bool           `json:"retryable"`
	Final     bool           `json:"final"`
	Spec      struct {
		Steps []struct {
			Name string `json:"name"`
		} `json:"steps"`
	} `json:"spec"`
}

func read(e event.Event) (told, error) {
	var d told
	if err := json.Unmarshal(e.Data, &d); err != nil {
		return d, fmt.Errorf("console: event %s: %w", e.ID, err)
	}
	return d, nil
}

const maxText = 2048 // bytes of a message that are shown

// hear returns the job after an event.
func (j job) hear(e event.Event, d told) job {
	if j.id == "" {
		j = job{jobKey: jobKey{e.Tenant, d.Job}, state: pending, attempt: max(1, d.Attempt), created: e.Time, step: -1}
	}
	if e.Time.Before(j.created) {
		j.created = e.Time
	}
	j.run = first(j.run, d.Run)
	j.pipeline = first(j.pipeline, d.Pipeline)
	j.name = first(j.name, d.Name)
	if len(j.steps) == 0 && len(d.Spec.Steps) > 0 {
		for i, s := range d.Spec.Steps {
			j.steps = append(j.steps, first(s.Name, "step-"+strconv.Itoa(i+1)))
		}
	}
	if d.Attempt < j.attempt {
		return j
	}
	switch e.Subject {
	case event.JobRequested.Subject:
		j.to(pending, d.Attempt, stepRequested)
	case event.AssignmentCreated.Subject:
		if j.to(scheduled, d.Attempt, stepScheduled) {
			j.node = d.Node
		}
	case event.JobStarted.Subject:
		if j.to(running, d.Attempt, stepStarted) {
			j.started, j.worker = e.Time, d.Worker
		}
	case event.StepStarted.Subject, event.StepCompleted.Subject:
		if d.Attempt == j.attempt && j.progress < d.Attempt*attempts+stepOver {
			j.step = max(j.step, d.Index)
		}
	case event.StepFailed.Subject:
		if d.Attempt == j.attempt && j.progress < d.Attempt*attempts+stepOver {
			j.step = max(j.step, d.Index)
			j.failure = failure{d.Code, clip(d.Message), d.Retryable}
		}
	case event.JobRetrying.Subject:
		why := j.failure
		if j.to(pending, d.Attempt+1, stepRetrying) {
			if why == (failure{}) {
				why = failure{Message: clip(d.Reason), Retryable: true}
			}
			j.failure = why
		}
	case event.JobTerminated.Subject:
		if !d.Final {
			if j.to(terminated, d.Attempt, stepLost) {
				j.failure = failure{d.Code, clip(d.Message), d.Retryable}
			}
			break
		}
		j.end(e, d, terminated)
	case event.JobFailed.Subject:
		j.end(e, d, failed)
	case event.JobCompleted.Subject:
		j.end(e, d, succeeded)
	case event.JobCancelled.Subject:
		d.Code, d.Message = "cancelled", d.Reason
		j.end(e, d, cancelled)
	}
	return j
}

// to moves the job on, unless it was there before.
func (j *job) to(state string, attempt, step int) bool {
	progress := attempt*attempts + step
	if progress <= j.progress {
		return false
	}
	if attempt > j.attempt || step <= stepRequested { // a new attempt knows nothing of the one before
		j.node, j.worker, j.step, j.started, j.finished = "", "", -1, time.Time{}, time.Time{}
	}
	j.state, j.attempt, j.progress = state, attempt, progress
	return true
}

func (j *job) end(e event.Event, d told, state string) {
	if !j.to(state, d.Attempt, stepOver) {
		return
	}
	j.finished, j.failure = e.Time, failure{}
	if state != succeeded {
		j.failure = failure{d.Code, clip(d.Message), d.Retryable}
	}
}

// class sorts jobs that live, succeeded, and ended otherwise.
func class(state string) int {
	switch state {
	case pending, scheduled, running:
		return 0
	case succeeded:
		return 1
	}
	return 2
}

func first[T comparable](a, b T) T {
	var none T
	if a != none {
		return a
	}
	return b
}

func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "")
}
