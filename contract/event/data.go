package event

import (
	"time"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

// Principal is who asked.
type Principal struct {
	Sub    string       `json:"sub"`
	Scopes []string     `json:"scopes"`
	Tenant ident.Tenant `json:"tenant_id"`
}

// Grant says who may do what, by which decision.
type Grant struct {
	Principal  Principal      `json:"principal"`
	Scope      string         `json:"scope"` // what was asked: Job::create
	DecisionID ident.Decision `json:"decision_id"`
	Resource   string         `json:"resource"` // Job::job_01…
	Policies   []string       `json:"policies,omitempty"`
}

// Denial says who may not do what, and why.
type Denial struct {
	Principal  Principal      `json:"principal"`
	Resource   string         `json:"resource"`
	Action     string         `json:"action"`
	Reason     string         `json:"reason"`
	DecisionID ident.Decision `json:"decision_id"`
}

// RunJob is a job of a run.
type RunJob struct {
	Job   ident.Job `json:"job_id"`
	Name  string    `json:"name"`
	Needs []string  `json:"needs,omitempty"` // names of the jobs that have to end well first
}

// RunMoved says that a run began or ended.
type RunMoved struct {
	Run      ident.Run      `json:"run_id"`
	Pipeline ident.Pipeline `json:"pipeline_id"`
	Version  int            `json:"pipeline_version"`
	State    string         `json:"state"`
	Attempt  int            `json:"attempt"`        // counts retries of the run
	Jobs     []RunJob       `json:"jobs,omitempty"` // when it began
}

// JobRequest asks scheduling for a place.
type JobRequest struct {
	Job         ident.Job      `json:"job_id"`
	Spec        spec.Job       `json:"spec"`
	Correlation string         `json:"correlation_id"`
	Tenant      ident.Tenant   `json:"tenant_id"`
	Attempt     int            `json:"attempt"`
	Priority    int            `json:"priority"`
	Name        string         `json:"name,omitempty"` // within its run
	Pipeline    ident.Pipeline `json:"pipeline_id,omitempty"`
	Run         ident.Run      `json:"run_id,omitempty"`
}

// Offer is capacity that a node has to give.
type Offer struct {
	Offer ident.Offer `json:"offer_id"`
	Node  ident.Node  `json:"node_id"`
	Quota spec.Quota  `json:"resource_quota"`
}

// Capacity is what a node has left.
type Capacity struct {
	Node  ident.Node `json:"node_id"`
	Quota spec.Quota `json:"resource_quota"`
	Total spec.Quota `json:"total"`
	At    time.Time  `json:"timestamp"`
}

// Assignment gives an attempt of a job to a node.
type Assignment struct {
	Assignment ident.Assignment `json:"assignment_id"`
	Job        ident.Job        `json:"job_id"`
	Node       ident.Node       `json:"node_id"`
	Policy     string           `json:"policy"`
	Attempt    int              `json:"attempt"`
	Offer      ident.Offer      `json:"offer_id"`
	Provider   string           `json:"provider_id"`
	Runtime    spec.RuntimeSpec `json:"runtime_spec"`
}

// Rejection says why an attempt has no place, or has it no more.
type Rejection struct {
	Assignment ident.Assignment `json:"assignment_id"`
	Reason     string           `json:"reason"`
	Job        ident.Job        `json:"job_id"`
	Attempt    int              `json:"attempt"`
}

// WorkerMade names a worker that is ready.
type WorkerMade struct {
	Worker     ident.Worker     `json:"worker_id"`
	Provider   string           `json:"provider_id"`
	Runtime    spec.RuntimeSpec `json:"runtime_spec"`
	Job        ident.Job        `json:"job_id,omitempty"` // none for a worker made by POST /workers
	Attempt    int              `json:"attempt,omitempty"`
	Assignment ident.Assignment `json:"assignment_id,omitempty"`
	Node       ident.Node       `json:"node_id"`
	Address    string           `json:"address"`   // where its API is served
	Identity   string           `json:"spiffe_id"` // what its certificate says
}

// Lease names a worker that was not heard of.
type Lease struct {
	Worker  ident.Worker `json:"worker_id"`
	Job     ident.Job    `json:"job_id,omitempty"`
	Attempt int          `json:"attempt,omitempty"`
	Expired time.Time    `json:"expired_at"`
}

// WorkerEnd names a worker that ended as it was told.
type WorkerEnd struct {
	Worker     ident.Worker     `json:"worker_id"`
	ExitCode   int              `json:"exit_code"`
	Job        ident.Job        `json:"job_id,omitempty"`
	Attempt    int              `json:"attempt,omitempty"`
	Assignment ident.Assignment `json:"assignment_id,omitempty"`
}

// WorkerLoss names a worker that ended, or was never there, unasked.
type WorkerLoss struct {
	Worker     ident.Worker     `json:"worker_id"`
	Reason     string           `json:"reason"`
	Job        ident.Job        `json:"job_id,omitempty"`
	Attempt    int              `json:"attempt,omitempty"`
	Assignment ident.Assignment `json:"assignment_id,omitempty"`
}

// JobStart lets execution run a job's steps.
type JobStart struct {
	Job      ident.Job      `json:"job_id"`
	Worker   ident.Worker   `json:"worker_id"`
	Attempt  int            `json:"attempt"`
	Address  string         `json:"address"`
	Run      ident.Run      `json:"run_id,omitempty"`
	Pipeline ident.Pipeline `json:"pipeline_id,omitempty"`
	Spec     spec.Job       `json:"spec"`
	Steps    []ident.Step   `json:"steps"` // the ids of Spec.Steps
	Deadline time.Time      `json:"deadline"`
}

// StepBegin says that a step's process runs.
type StepBegin struct {
	Step    ident.Step `json:"step_id"`
	Job     ident.Job  `json:"job_id"` // of a worker without a job: the worker's id
	Exec    ident.Exec `json:"exec_id"`
	Attempt int        `json:"attempt"`
	Index   int        `json:"index"` // of the step in its job, from 0
	Try     int        `json:"try"`   // of the step in this attempt, from 1
	At      time.Time  `json:"started_at"`
	Over    bool       `json:"over,omitempty"` // it has ended meanwhile; the event that says how was sent with this one
}

// StepEnd says how a step ended well.
type StepEnd struct {
	Step       ident.Step      `json:"step_id"`
	ResultRef  string          `json:"result_ref"` // the execution's id
	DurationMS int64           `json:"duration_ms"`
	Job        ident.Job       `json:"job_id"`
	Exec       ident.Exec      `json:"exec_id"`
	Attempt    int             `json:"attempt"`
	Index      int             `json:"index"`
	Try        int             `json:"try"`
	Result     spec.ExecResult `json:"result"`
	At         time.Time       `json:"finished_at"`
}

// StepFault says how a try of a step ended badly.
type StepFault struct {
	Step       ident.Step      `json:"step_id"`
	Code       string          `json:"error_code"` // exit, timeout, start, job_timeout, secret, artifact, source, lost, cancelled
	Retryable  bool            `json:"retryable"`  // whether another try may mend it
	Job        ident.Job       `json:"job_id"`
	Exec       ident.Exec      `json:"exec_id"`
	Attempt    int             `json:"attempt"`
	Index      int             `json:"index"`
	Try        int             `json:"try"`
	Last       bool            `json:"last"` // no further try follows in this attempt
	Message    string          `json:"message"`
	DurationMS int64           `json:"duration_ms"`
	Result     spec.ExecResult `json:"result"`
	At         time.Time       `json:"finished_at"`
}

// ArtifactKept names an artifact that is stored.
type ArtifactKept struct {
	Ref      spec.ArtifactRef `json:"artifact_ref"`
	Checksum spec.Checksum    `json:"checksum"`
	Size     int64            `json:"size_bytes"`
}

// ArtifactChecked says whether an artifact is what it was.
type ArtifactChecked struct {
	Ref    spec.ArtifactRef `json:"artifact_ref"`
	Status string           `json:"status" enum:"valid,corrupt"`
}

// ArtifactMoved names an artifact and where it may be used.
type ArtifactMoved struct {
	Ref spec.ArtifactRef `json:"artifact_ref"`
	Env string           `json:"env"`
}

// JobRetry says when another attempt follows, and why.
type JobRetry struct {
	Job     ident.Job `json:"job_id"`
	Attempt int       `json:"attempt"` // the one that ended
	After   int64     `json:"after_ms"`
	Reason  string    `json:"reason"`
	Run     ident.Run `json:"run_id,omitempty"`
}

// JobDone says that a job ended well.
type JobDone struct {
	Job       ident.Job `json:"job_id"`
	ResultRef string    `json:"result_ref"` // the id of its last execution
	Attempt   int       `json:"attempt"`
	Run       ident.Run `json:"run_id,omitempty"`
}

// JobFault says how an attempt ended badly.
type JobFault struct {
	Job       ident.Job `json:"job_id"`
	Code      string    `json:"error_code"`
	Retryable bool      `json:"retryable"`
	Message   string    `json:"message"`
	Attempt   int       `json:"attempt"`
	Final     bool      `json:"final"` // false where JobRetrying follows
	Run       ident.Run `json:"run_id,omitempty"`
}

// JobStop says why a job was called off.
type JobStop struct {
	Job     ident.Job `json:"job_id"`
	Reason  string    `json:"reason"`
	Attempt int       `json:"attempt"`
	Run     ident.Run `json:"run_id,omitempty"`
}

// Compensation names a job that is undone, and the job that undoes it.
type Compensation struct {
	Run     ident.Run `json:"run_id"`
	Job     ident.Job `json:"job_id"` // what is undone
	By      ident.Job `json:"by_job_id"`
	Attempt int       `json:"attempt"`
}

// Metric is one measurement.
type Metric struct {
	Name  string            `json:"metric_name"`
	Value float64           `json:"value"`
	Kind  string            `json:"metric_type" enum:"counter,gauge,histogram"`
	Tags  map[string]string `json:"tags"`
	At    time.Time         `json:"timestamp"`
}

// TraceContext places spans in a trace, as W3C Trace Context writes ids.
type TraceContext struct {
	TraceID      string `json:"trace_id"`
	SpanID       string `json:"span_id"`
	ParentSpanID string `json:"parent_span_id,omitempty"`
}

// A Span is one timed piece of work.
type Span struct {
	TraceContext
	Name       string            `json:"name"`
	Service    string            `json:"service"`
	Start      time.Time         `json:"start"`
	End        time.Time         `json:"end"`
	Error      string            `json:"error,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Trace carries spans that have ended; TraceContext is the first one's.
type Trace struct {
	Context TraceContext `json:"trace_context"`
	Spans   []Span       `json:"spans"`
}

// Alert asks someone to look.
type Alert struct {
	Alert    ident.Alert       `json:"alert_id"`
	Severity string            `json:"severity" enum:"info,warning,critical"`
	Message  string            `json:"message"`
	Tags     map[string]string `json:"tags,omitempty"`
}
