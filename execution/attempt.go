package execution

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

// Why a step failed, besides what package agentapi says.
const (
	codeLost     = "lost"        // the worker is gone: the platform's fault, not the step's
	codeDeadline = "job_timeout" // the job ran longer than its timeout
	codeSecret   = "secret"      // a secret that it names is not set
	codeSource   = "source"      // the files it starts from are not to be had
	codeArtifact = "artifact"    // a file that it should leave behind is not there
)

// An attempt is one try of a job on its worker, and how far it is.
type attempt struct {
	Start       event.JobStart `json:"start"`
	Tenant      ident.Tenant   `json:"tenant_id"`
	Correlation string         `json:"correlation_id"`
	Trace       string         `json:"traceparent,omitempty"`
	Index       int            `json:"index"`            // the step that is next, or at work
	Try         int            `json:"try"`              // of it, from 1
	Begun       bool           `json:"begun"`            // its start has been told
	Since       time.Time      `json:"since,omitzero"`   // when that was
	Before      *lastTry       `json:"before,omitempty"` // of this step
	Done        bool           `json:"done"`
	Away        time.Duration  `json:"away,omitempty"` // in which the platform was away, and could not go on with it
}

// deadline is when the attempt's time is over.
func (a *attempt) deadline() time.Time { return a.Start.Deadline.Add(a.Away) }

// lastTry is the try of a step that ran last. One that does not come to run, as the time is
// up, or the job is called off, has that one's execution to show.
type lastTry struct {
	Exec    ident.Exec      `json:"exec_id"`
	Result  spec.ExecResult `json:"result"`
	Started time.Time       `json:"started_at"`
	At      time.Time       `json:"finished_at"`
}

func newAttempt(e event.Event, d event.JobStart) *attempt {
	return &attempt{Start: d, Tenant: e.Tenant, Correlation: e.CorrelationID, Trace: e.TraceParent, Try: 1}
}

func (a *attempt) key() key { return key{a.Tenant, a.Start.Job, a.Start.Attempt} }

func (a *attempt) step() spec.Step { return a.Start.Spec.Steps[a.Index] }

// late is what is said with codeDeadline.
func (a *attempt) late() string {
	return fmt.Sprintf("the job ran longer than its timeout of %v", time.Duration(a.Start.Spec.TimeoutMS)*time.Millisecond)
}

func (a *attempt) last() bool { return a.Index == len(a.Start.Spec.Steps)-1 }

func (a *attempt) stepID() ident.Step { return a.Start.Steps[a.Index] }

// execID names the execution of the current try: always the same one.
func (a *attempt) execID() ident.Exec {
	return ident.Exec(fmt.Sprintf("%s%d_%d", execPrefix(a.stepID()), a.Start.Attempt, a.Try))
}

// execPrefix is what the names of all executions of a job's step begin with.
func execPrefix(s ident.Step) string {
	return "exe_" + strings.TrimPrefix(string(s), "stp_") + "_"
}

// ofJob says whether an execution's name is one that a job's step would get.
func ofJob(id ident.Exec) bool {
	return strings.HasPrefix(string(id), "exe_") && strings.Count(string(id), "_") >= 3
}

func (a *attempt) about(now time.Time) event.About {
	return event.About{
		Tenant: a.Tenant, Key: string(a.Start.Job), Twist: fmt.Sprintf("%d.%d.%d", a.Start.Attempt, a.Index, a.Try),
		Correlation: a.Correlation, TraceParent: a.Trace, At: now,
	}
}

// request is what the worker is asked to do. The worker knows a step of one try
// only, so that a further try has a name of its own.
func (a *attempt) request(secrets map[string]string, now time.Time) agentapi.ExecRequest {
	s := a.step()
	env := make(map[string]string, len(a.Start.Spec.Env)+len(s.Env))
	for k, v := range a.Start.Spec.Env {
		env[k] = v
	}
	for k, v := range s.Env {
		env[k] = v
	}
	step := a.stepID()
	if a.Try > 1 {
		step = ident.Step(fmt.Sprintf("%s.%d", step, a.Try))
	}
	limit := a.deadline().Sub(now)
	if own := time.Duration(s.TimeoutMS) * time.Millisecond; own > 0 {
		limit = min(limit, own)
	}
	return agentapi.ExecRequest{
		Exec: a.execID(), Step: step, Job: a.Start.Job, Attempt: a.Start.Attempt, Name: s.Name,
		Command: s.Argv(), Env: env, Secrets: secrets, TimeoutMS: max(1, limit.Milliseconds()),
	}
}

func (a *attempt) began(at time.Time, over bool) event.Event {
	a.Begun, a.Since = true, at
	return event.StepStarted.Event(a.about(at), event.StepBegin{
		Step: a.stepID(), Job: a.Start.Job, Exec: a.execID(), Attempt: a.Start.Attempt, Index: a.Index, Try: a.Try, At: at, Over: over,
	})
}

// An outcome is how a try of a step ended. Code is empty when it ended well.
type outcome struct {
	code, message string
	retryable     bool
	exec          ident.Exec // empty when nothing was started
	result        spec.ExecResult
	started, at   time.Time
}

func (o outcome) ms() int64 { return max(0, o.at.Sub(o.started).Milliseconds()) }

// settle takes note of an outcome, moves on to what is next, and returns the fact
// and how long to wait before going on: no longer than the job has time.
func (a *attempt) settle(o outcome) (fact event.Event, wait time.Duration) {
	about, s := a.about(o.at), a.step()
	if b := a.Before; o.exec == "" && b != nil {
		o.exec, o.result, o.started, o.at = b.Exec, b.Result, b.Started, b.At
	}
	if o.code == "" {
		fact = event.StepCompleted.Event(about, event.StepEnd{
			Step: a.stepID(), ResultRef: string(o.exec), DurationMS: o.ms(), Job: a.Start.Job, Exec: o.exec,
			Attempt: a.Start.Attempt, Index: a.Index, Try: a.Try, Result: o.result, At: o.at,
		})
		a.Index, a.Try, a.Begun, a.Before = a.Index+1, 1, false, nil
		a.Done = a.Index == len(a.Start.Spec.Steps)
		return fact, 0
	}
	again := o.retryable && a.Try <= s.Retries && (o.code == agentapi.CodeExit || o.code == agentapi.CodeTimeout)
	fact = event.StepFailed.Event(about, event.StepFault{
		Step: a.stepID(), Code: o.code, Retryable: o.retryable, Job: a.Start.Job, Exec: o.exec, Attempt: a.Start.Attempt,
		Index: a.Index, Try: a.Try, Last: !again, Message: o.message, DurationMS: o.ms(), Result: o.result, At: o.at,
	})
	if !again {
		a.Done = true
		return fact, 0
	}
	wait = time.Duration(s.RetryBackoffMS) * time.Millisecond
	for range min(a.Try-1, 30) {
		wait = min(2*wait, time.Hour)
	}
	a.Try, a.Begun, a.Before = a.Try+1, false, &lastTry{o.exec, o.result, o.started, o.at}
	wait += rand.N(wait/5 + 1)
	return fact, max(0, min(wait, a.deadline().Sub(o.at)))
}

// ownLimit says whether an execution ran for as long as its step may, whatever the job's time.
func (a *attempt) ownLimit(x agentapi.Exec) bool {
	if a.Index >= len(a.Start.Spec.Steps) {
		return false
	}
	own := time.Duration(a.step().TimeoutMS) * time.Millisecond
	return own > 0 && x.Finished.Sub(x.Started) >= own
}

// judge turns what a worker says of an ended execution into an outcome.
func (a *attempt) judge(x agentapi.Exec) outcome {
	o := outcome{
		exec: x.Exec, started: x.Started, at: x.Finished,
		result: spec.ExecResult{
			ExitCode:  x.ExitCode,
			StdoutRef: spec.LogRef{ExecID: string(x.Exec), Stream: "stdout", Lines: x.Stdout.Lines, Bytes: x.Stdout.Bytes},
			StderrRef: spec.LogRef{ExecID: string(x.Exec), Stream: "stderr", Lines: x.Stderr.Lines, Bytes: x.Stderr.Bytes},
			Artifacts: []spec.ArtifactRef{},
		},
	}
	if x.State == agentapi.Completed {
		return o
	}
	o.code, o.message = x.Code, x.Message
	switch {
	case x.Code == agentapi.CodeTimeout && !x.Finished.Before(a.Start.Deadline) && !a.ownLimit(x):
		o.code, o.message, o.retryable = codeDeadline, a.late(), true
	case x.Code == agentapi.CodeExit, x.Code == agentapi.CodeTimeout:
		o.retryable = true
	}
	return o
}
