package orchestration

import (
	"slices"
	"strconv"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

// maxPlacements bounds how often a job whose worker failed before anything of
// the job ran is placed anew, whatever its retries: nothing runs twice by it.
const maxPlacements = 5

// A Job is one unit of work, as the API shows it.
type Job struct {
	ID          ident.Job         `json:"job_id"`
	Tenant      ident.Tenant      `json:"tenant_id"`
	Pipeline    ident.Pipeline    `json:"pipeline_id,omitempty"`
	Run         ident.Run         `json:"run_id,omitempty"`
	Name        string            `json:"name,omitempty" doc:"Within its run"`
	Correlation string            `json:"correlation_id"`
	State       State             `json:"state" enum:"PENDING,SCHEDULED,RUNNING,SUCCEEDED,FAILED,CANCELLED,TERMINATED"`
	Attempts    int               `json:"attempts" doc:"The number of the current attempt, from 1"`
	Spec        spec.Job          `json:"spec"`
	Steps       []Step            `json:"steps" nullable:"false"`
	Node        ident.Node        `json:"node_id,omitempty"`
	Worker      ident.Worker      `json:"worker_id,omitempty"`
	Result      *spec.ExecResult  `json:"result,omitempty"`
	Failure     *Failure          `json:"failure,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Priority    int               `json:"priority,omitempty"`
	Owner       string            `json:"owner,omitempty"`
	RetryOf     ident.Job         `json:"retry_of,omitempty" doc:"The ended job that this one tries again"`
	RetriedBy   ident.Job         `json:"retried_by,omitempty" doc:"The job that tries this ended one again"`
	Undoes      ident.Job         `json:"undoes,omitempty" doc:"The job whose work this one undoes"`
	Created     time.Time         `json:"created_at"`
	Started     *time.Time        `json:"started_at,omitempty"`
	Finished    *time.Time        `json:"finished_at,omitempty"`
}

// A job is a Job with what only this room needs of it. Its methods return what
// happened as events; the caller saves both together.
type job struct {
	Job
	inner
}

type inner struct {
	Trace      string    `json:"traceparent,omitempty"`
	Waits      bool      `json:"waits,omitempty"`      // for the jobs it needs: not asked for yet
	RetryAt    time.Time `json:"retry_at,omitzero"`    // when the next attempt is asked for
	Occupied   int       `json:"occupied,omitempty"`   // the attempt whose worker has not ended
	Placements int       `json:"placements,omitempty"` // attempts lost before anything ran
	Round      int       `json:"round,omitempty"`      // of saying the last fact again
	Address    string    `json:"address,omitempty"`    // of the worker
	Deadline   time.Time `json:"deadline,omitzero"`    // of the attempt
	Due        time.Time `json:"due,omitzero"`
}

// A Step is one command of a job, and how its last try went.
type Step struct {
	ID         ident.Step `json:"step_id"`
	Name       string     `json:"name"`
	State      string     `json:"state" enum:"PENDING,STARTED,COMPLETED,FAILED,SKIPPED"`
	Exec       ident.Exec `json:"exec_id,omitempty"`
	Try        int        `json:"try,omitempty" doc:"Which try of this attempt, from 1"`
	ExitCode   *int       `json:"exit_code,omitempty"`
	Code       string     `json:"error_code,omitempty"`
	Message    string     `json:"message,omitempty"`
	Started    *time.Time `json:"started_at,omitempty"`
	Finished   *time.Time `json:"finished_at,omitempty"`
	DurationMS *int64     `json:"duration_ms,omitempty" doc:"Once it has ended"`
}

// The states of a step.
const (
	stepPending   = "PENDING"
	stepStarted   = "STARTED"
	stepCompleted = "COMPLETED"
	stepFailed    = "FAILED"
	stepSkipped   = "SKIPPED"
)

// A Failure says why a job ended badly.
type Failure struct {
	Code      string `json:"code"`
	Message   string `json:"message"`
	Retryable bool   `json:"retryable"`
}

// to moves the job; a move that the table does not hold is a bug, and refused.
func (j *job) to(s State, now time.Time) error {
	if err := may(j.State, s); err != nil {
		return err
	}
	j.State, j.Round = s, 0
	if s.ended() {
		j.Finished = &now
		for i := range j.Steps {
			if j.Steps[i].State == stepPending {
				j.Steps[i].State = stepSkipped
			}
		}
	}
	return nil
}

// over says whether the job has ended, for good.
func (j *job) over() bool { return j.State.ended() }

func (j *job) about(twist string, now time.Time) event.About {
	return event.About{
		Tenant: j.Tenant, Key: string(j.ID), Twist: twist, Correlation: j.Correlation, TraceParent: j.Trace, At: now,
	}
}

func (j *job) attempt() string { return strconv.Itoa(j.Attempts) }

// twist tells a fact of this attempt from that of others, and from its repeats.
func (j *job) twist() string {
	if j.Round == 0 {
		return j.attempt()
	}
	return j.attempt() + ".r" + strconv.Itoa(j.Round)
}

// request asks scheduling for a place for the current attempt.
func (j *job) request(now time.Time) event.Event {
	j.Waits, j.RetryAt = false, time.Time{}
	return event.JobRequested.Event(j.about(j.twist(), now), event.JobRequest{
		Job: j.ID, Spec: j.Spec, Correlation: j.Correlation, Tenant: j.Tenant, Attempt: j.Attempts,
		Priority: j.Priority, Pipeline: j.Pipeline, Run: j.Run, Name: j.Name,
	})
}

// schedule takes note of a place.
func (j *job) schedule(a event.Assignment, now time.Time) error {
	if err := j.to(Scheduled, now); err != nil {
		return err
	}
	j.Node, j.Occupied = a.Node, j.Attempts
	return nil
}

// start lets execution begin, on a worker.
func (j *job) start(w event.WorkerMade, now time.Time) ([]event.Event, error) {
	if err := j.to(Running, now); err != nil {
		return nil, err
	}
	j.Worker, j.Address, j.Started = w.Worker, w.Address, &now
	j.Deadline = now.Add(time.Duration(j.Spec.TimeoutMS) * time.Millisecond)
	return []event.Event{j.begin(now)}, nil
}

func (j *job) begin(now time.Time) event.Event {
	ids := make([]ident.Step, len(j.Steps))
	for i, s := range j.Steps {
		ids[i] = s.ID
	}
	return event.JobStarted.Event(j.about(j.twist(), now), event.JobStart{
		Job: j.ID, Worker: j.Worker, Attempt: j.Attempts, Address: j.Address, Run: j.Run, Pipeline: j.Pipeline,
		Spec: j.Spec, Steps: ids, Deadline: j.Deadline,
	})
}

// stepBegan takes note of a step's process.
func (j *job) stepBegan(b event.StepBegin) bool {
	if b.Index < 0 || b.Index >= len(j.Steps) {
		return false
	}
	s := &j.Steps[b.Index]
	if b.Try < s.Try || b.Try == s.Try && s.State != stepPending {
		return false
	}
	*s = Step{ID: s.ID, Name: s.Name, State: stepStarted, Exec: b.Exec, Try: b.Try, Started: &b.At}
	return true
}

// stepEnded takes note of how a try of a step ended.
func (j *job) stepEnded(index, try int, exec ident.Exec, state string, r spec.ExecResult, ms int64, at time.Time, code, message string) bool {
	if index < 0 || index >= len(j.Steps) {
		return false
	}
	s := &j.Steps[index]
	if try < s.Try || try == s.Try && (s.State == stepCompleted || s.State == stepFailed) {
		return false
	}
	began := at.Add(-time.Duration(ms) * time.Millisecond)
	next := Step{
		ID: s.ID, Name: s.Name, State: state, Exec: exec, Try: try, Started: &began, Finished: &at,
		DurationMS: &ms, Code: code, Message: message,
	}
	if s.Exec == exec && s.Started != nil {
		next.Started = s.Started
	}
	if exec != "" {
		next.ExitCode = &r.ExitCode
	}
	*s = next
	return true
}

// completed says whether every step ended well.
func (j *job) completed() bool {
	return !slices.ContainsFunc(j.Steps, func(s Step) bool { return s.State != stepCompleted })
}

// succeed ends the job well.
func (j *job) succeed(now time.Time, result spec.ExecResult) ([]event.Event, error) {
	if err := j.to(Succeeded, now); err != nil {
		return nil, err
	}
	j.Result, j.Failure = &result, nil
	return []event.Event{j.endFact(now)}, nil
}

// fail ends the attempt by a step that failed for good: with another attempt, or
// for ever.
func (j *job) fail(now time.Time, f Failure, result spec.ExecResult, backoff func(int) time.Duration) ([]event.Event, error) {
	if f.Retryable && j.Attempts-j.Placements <= j.Spec.Retries {
		return j.again(now, f, backoff)
	}
	if err := j.to(Failed, now); err != nil {
		return nil, err
	}
	j.Failure, j.Result = &f, &result
	return []event.Event{j.endFact(now)}, nil
}

// lose ends the attempt because the platform lost it.
func (j *job) lose(now time.Time, reason string, backoff func(int) time.Duration) ([]event.Event, error) {
	began := j.State == Running
	if err := j.to(Terminated, now); err != nil {
		return nil, err
	}
	f := Failure{Code: "lost", Message: reason, Retryable: true}
	if !began && j.Placements < maxPlacements {
		j.Placements++
	} else if j.Attempts-j.Placements > j.Spec.Retries {
		j.Failure = &f
		return []event.Event{j.endFact(now)}, nil
	}
	lost := event.JobTerminated.Event(j.about(j.attempt(), now), event.JobFault{
		Job: j.ID, Code: f.Code, Retryable: true, Message: reason, Attempt: j.Attempts, Run: j.Run,
	})
	more, err := j.again(now, f, backoff)
	return append([]event.Event{lost}, more...), err
}

// again makes the job wait for its next attempt.
func (j *job) again(now time.Time, f Failure, backoff func(int) time.Duration) ([]event.Event, error) {
	if err := j.to(Pending, now); err != nil {
		return nil, err
	}
	wait := backoff(j.Attempts)
	e := event.JobRetrying.Event(j.about(j.attempt(), now), event.JobRetry{
		Job: j.ID, Attempt: j.Attempts, After: wait.Milliseconds(), Reason: f.Message, Run: j.Run,
	})
	j.Failure, j.Finished = &f, nil
	j.Attempts++
	j.RetryAt = now.Add(wait).Truncate(time.Millisecond) // as its row has it
	j.Node, j.Worker, j.Address, j.Started = "", "", "", nil
	for i, s := range j.Steps {
		j.Steps[i] = Step{ID: s.ID, Name: s.Name, State: stepPending}
	}
	return []event.Event{e}, nil
}

// cancel calls the job off.
func (j *job) cancel(now time.Time, reason string) ([]event.Event, error) {
	if err := j.to(Cancelled, now); err != nil {
		return nil, err
	}
	j.Failure = &Failure{Code: "cancelled", Message: reason}
	return []event.Event{j.endFact(now)}, nil
}

// endFact says how the job ended, or ends again when it is repeated.
func (j *job) endFact(now time.Time) event.Event {
	a := j.about(j.twist(), now)
	switch j.State {
	case Succeeded:
		ref := ""
		if n := len(j.Steps); n > 0 {
			ref = string(j.Steps[n-1].Exec)
		}
		return event.JobCompleted.Event(a, event.JobDone{Job: j.ID, ResultRef: ref, Attempt: j.Attempts, Run: j.Run})
	case Cancelled:
		return event.JobCancelled.Event(a, event.JobStop{Job: j.ID, Reason: j.Failure.Message, Attempt: j.Attempts, Run: j.Run})
	}
	fault := event.JobFault{
		Job: j.ID, Code: j.Failure.Code, Retryable: j.Failure.Retryable, Message: j.Failure.Message,
		Attempt: j.Attempts, Final: true, Run: j.Run,
	}
	if j.State == Failed {
		return event.JobFailed.Event(a, fault)
	}
	return event.JobTerminated.Event(a, fault)
}
