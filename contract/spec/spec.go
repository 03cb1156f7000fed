// Package spec holds what users ask for, as every room understands it: the
// value objects of the blueprint, with its field names. Validation lives here,
// so that the command line, the API and the rooms find the same faults.
package spec

// A Quota is an amount of a machine.
type Quota struct {
	CPUm     int64 `json:"cpu_m" required:"false" minimum:"0" maximum:"1024000" doc:"Thousandths of a CPU core"`
	MemoryMB int64 `json:"memory_mb" required:"false" minimum:"0" maximum:"16777216" doc:"Memory in MiB"`
	GPU      int64 `json:"gpu" required:"false" minimum:"0" maximum:"1024" doc:"Whole GPUs"`
	IO       int64 `json:"io" required:"false" minimum:"0" maximum:"1000000" doc:"Disk and network weight, in MB/s"`
	Workers  int64 `json:"-"` // of a node: how many at one time; each job has one
}

// Plus returns q and o together.
func (q Quota) Plus(o Quota) Quota {
	return Quota{q.CPUm + o.CPUm, q.MemoryMB + o.MemoryMB, q.GPU + o.GPU, q.IO + o.IO, q.Workers + o.Workers}
}

// Minus returns what is left of q without o; it may be negative.
func (q Quota) Minus(o Quota) Quota {
	return Quota{q.CPUm - o.CPUm, q.MemoryMB - o.MemoryMB, q.GPU - o.GPU, q.IO - o.IO, q.Workers - o.Workers}
}

// Holds says whether o fits into q in every dimension.
func (q Quota) Holds(o Quota) bool {
	return q.CPUm >= o.CPUm && q.MemoryMB >= o.MemoryMB && q.GPU >= o.GPU && q.IO >= o.IO && q.Workers >= o.Workers
}

// What a job gets that asks for nothing. Twenty such jobs share a core.
const (
	DefaultCPUm      = 50
	DefaultMemoryMB  = 128
	DefaultTimeoutMS = 60 * 60 * 1000
	DefaultBackoffMS = 1000

	DefaultRepository = "jobs" // of what a job leaves behind
)

// A Job is the specification of one unit of work: steps that run one after the
// other on one worker. Command is short for a single step.
type Job struct {
	Image          string            `json:"image,omitempty" maxLength:"512" example:"golang:1.26" doc:"Container image the steps run in; the process provider ignores it"`
	Command        []string          `json:"command,omitempty" maxItems:"4096" nullable:"false" doc:"Program and arguments, without a shell: short for one step"`
	Steps          []Step            `json:"steps,omitempty" maxItems:"1000" nullable:"false" doc:"What to run, in this order, until one fails"`
	Resources      Quota             `json:"resources,omitempty" doc:"What the job may use of a node; 50 cpu_m and 128 memory_mb unless given"`
	TimeoutMS      int64             `json:"timeout_ms,omitempty" minimum:"1" maximum:"604800000" doc:"Limit of one attempt, in milliseconds; an hour unless given"`
	Retries        int               `json:"retries,omitempty" minimum:"0" maximum:"100" doc:"How many more attempts a job gets that failed or was lost"`
	RetryBackoffMS int64             `json:"retry_backoff_ms,omitempty" minimum:"1" maximum:"86400000" doc:"Wait before the second attempt; doubled for each further one, with jitter"`
	Env            map[string]string `json:"env,omitempty" doc:"Environment variables of every step"`
	SecretRefs     []string          `json:"secret_refs,omitempty" maxItems:"64" nullable:"false" doc:"Secrets that the steps see as environment variables"`
	Affinity       *Affinity         `json:"affinity,omitempty" doc:"Where the job may run"`
	Artifacts      []Artifact        `json:"artifacts,omitempty" maxItems:"64" nullable:"false" doc:"Files kept when the job succeeds"`
	Source         *Source           `json:"source,omitempty" doc:"Files laid into the workspace before the first step"`
}

// A Step is one command of a job.
type Step struct {
	Name           string            `json:"name,omitempty" maxLength:"128" doc:"Shown to people; step-1, step-2, … unless given"`
	Run            string            `json:"run,omitempty" maxLength:"131071" doc:"A script for sh -e"`
	Command        []string          `json:"command,omitempty" maxItems:"4096" nullable:"false" doc:"Program and arguments, without a shell"`
	Env            map[string]string `json:"env,omitempty" doc:"Environment variables of this step, over the job's"`
	TimeoutMS      int64             `json:"timeout_ms,omitempty" minimum:"1" maximum:"604800000" doc:"Limit of one try, in milliseconds"`
	Retries        int               `json:"retries,omitempty" minimum:"0" maximum:"100" doc:"How many more tries the step gets on the same worker"`
	RetryBackoffMS int64             `json:"retry_backoff_ms,omitempty" minimum:"1" maximum:"86400000" doc:"Wait before the second try; doubled for each further one, with jitter"`
}

// Argv returns the program and arguments of s.
func (s Step) Argv() []string {
	if s.Run != "" {
		return []string{"/bin/sh", "-e", "-c", s.Run}
	}
	return s.Command
}

// Affinity says which nodes a job accepts. An empty field accepts any.
type Affinity struct {
	ByExecutorType string `json:"by_executor_type,omitempty" maxLength:"128" doc:"Provider of the worker: process, docker, kubernetes"`
	ByZone         string `json:"by_zone,omitempty" maxLength:"128"`
	ByPool         string `json:"by_pool,omitempty" maxLength:"128"`
}

// An Artifact names a file or folder that a job leaves behind.
type Artifact struct {
	Repository string `json:"repository,omitempty" maxLength:"128" doc:"The pipeline's name unless given"`
	Name       string `json:"name" maxLength:"128" minLength:"1"`
	Version    string `json:"version,omitempty" maxLength:"128" doc:"The run's id unless given, with the number of its try from the second on"`
	Path       string `json:"path" maxLength:"4096" minLength:"1" doc:"Within the workspace; a folder is kept as a tar archive"`
}

// A Source names the artifact that is unpacked into a job's workspace: a tar archive,
// plain or compressed with gzip or zstd, such as the files a run was started from or a
// folder that another job kept. A job of a run has all of it, whatever its pipeline
// leaves out.
type Source struct {
	Repository string `json:"repository,omitempty" maxLength:"128" doc:"The pipeline's name unless given; needed without a pipeline"`
	Name       string `json:"name" maxLength:"128"`
	Version    string `json:"version,omitempty" maxLength:"128" doc:"What a job that this one needs, directly or through others, keeps in the same run, unless given; needed without a pipeline"`
}

// A Pipeline is a set of jobs and what each of them needs first.
type Pipeline struct {
	Name string                 `json:"name" minLength:"1" maxLength:"128" example:"build"`
	Env  map[string]string      `json:"env,omitempty" doc:"Environment variables of every job"`
	Jobs map[string]PipelineJob `json:"jobs" minProperties:"1" maxProperties:"1000" doc:"The jobs, by name"`
}

// A PipelineJob is a job within a pipeline.
type PipelineJob struct {
	Job
	Needs      []string `json:"needs,omitempty" maxItems:"1000" nullable:"false" doc:"Jobs that must have succeeded first"`
	Compensate []Step   `json:"compensate,omitempty" maxItems:"100" nullable:"false" doc:"Steps that undo this job when the run fails after it succeeded"`
}

// RuntimeSpec says what kind of worker to make.
type RuntimeSpec struct {
	Image       string            `json:"image,omitempty" maxLength:"512"`
	Limits      Quota             `json:"limits,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Tolerations []string          `json:"tolerations,omitempty" maxItems:"64" nullable:"false"`
	SecretRefs  []string          `json:"secret_refs,omitempty" maxItems:"64" nullable:"false"`
}

// ProviderConfig says which provider makes workers, and how to reach it.
type ProviderConfig struct {
	Kind        string `json:"kind" enum:"process,docker,kubernetes"`
	Context     string `json:"context,omitempty"`
	Namespace   string `json:"namespace,omitempty"`
	Credentials string `json:"credentials,omitempty"` // a reference, never the credential
}

// An ArtifactRef is the name of one version of an artifact.
type ArtifactRef struct {
	Repository string `json:"repository"`
	Name       string `json:"name"`
	Version    string `json:"version"`
}

// String returns repository/name/version.
func (r ArtifactRef) String() string { return r.Repository + "/" + r.Name + "/" + r.Version }

// A Checksum proves what an artifact holds.
type Checksum struct {
	Algo  string `json:"algo" enum:"sha256,sha512,blake3"`
	Value string `json:"value" doc:"In hexadecimal"`
}

// A LogRef is where an execution's output can be read.
type LogRef struct {
	ExecID string `json:"exec_id"`
	Stream string `json:"stream" enum:"stdout,stderr"`
	Lines  int64  `json:"lines"`
	Bytes  int64  `json:"bytes"`
}

// An ExecResult is how an execution ended.
type ExecResult struct {
	ExitCode  int           `json:"exit_code" doc:"-1 while there is none; 128 and the signal's number for a step that a signal ended"`
	StdoutRef LogRef        `json:"stdout_ref"`
	StderrRef LogRef        `json:"stderr_ref"`
	Artifacts []ArtifactRef `json:"artifacts"`
}

// NewResult is that of the execution called exec, or of none, of which nothing is
// known: it printed nothing and kept nothing.
func NewResult(exec string, exitCode int) ExecResult {
	return ExecResult{
		ExitCode: exitCode, StdoutRef: LogRef{ExecID: exec, Stream: "stdout"}, StderrRef: LogRef{ExecID: exec, Stream: "stderr"}, Artifacts: []ArtifactRef{},
	}
}
