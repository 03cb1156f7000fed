// Package agentapi is what a worker's agent says and hears: the control messages
// between it and the provider that made it, and the bodies of the API that it
// serves to the execution room, over mutual TLS and to nobody else.
//
//	POST /exec           ExecRequest → Exec         starts a step; the same step_id again starts nothing
//	GET  /logs/{exec_id} ?from=N → frames           from byte N of the frame stream (see logframe) until its end
//	POST /complete       CompleteRequest → Exec     waits for the end, bounded; the same answer when asked again
//	POST /cancel         CancelRequest → Exec       ends a step: TERM to its group, KILL after the grace
//	PUT  /workspace      tar, tar.gz, tar.zst       unpacked into the empty workspace, before the first step
//	GET  /files?path=P   a file's bytes, or a folder as tar (X-Fragua-Kind: file | tar)
//	POST /lease          LeaseReply                 nothing but a sign of life
//	POST /worker         WorkerRequest → Proof      the connection goes on with the agent's next worker
//
// A connection reaches the worker whose certificate was shown when it was made. It
// may outlive that worker: when the agent has become another, /worker asks it to
// prove, on this connection, that it is that one too (see identity.Prove).
//
// Every request renews the worker's lease. Errors are problem+json.
package agentapi

import (
	"time"

	"fragua.dev/fragua/contract/ident"
)

// Limits of the API, in bytes unless said otherwise.
const (
	MaxBody      = 8 << 20  // of a JSON body
	MaxWait      = 30_000   // of one /complete, in milliseconds
	MaxExecWait  = 1000     // of one /exec, in milliseconds
	MaxInline    = 32 << 10 // of a log within an answer of /exec
	MaxWorkspace = 8 << 30  // of an unpacked workspace
	MaxLine      = 1 << 20  // of a log line; the rest is cut, with a mark
	MaxLog       = 1 << 30  // of an execution's log; the rest is cut, with a mark
	DefaultGrace = 5 * time.Second
)

// ExecRequest asks for one execution of a step.
type ExecRequest struct {
	Exec      ident.Exec        `json:"exec_id"`
	Step      ident.Step        `json:"step_id"`
	Job       ident.Job         `json:"job_id"`
	Attempt   int               `json:"attempt"` // the fencing token: the agent refuses any but its own
	Name      string            `json:"name"`
	Command   []string          `json:"command"`
	Env       map[string]string `json:"env,omitempty"`
	Secrets   map[string]string `json:"secrets,omitempty"` // environment variables too, and masked in the log
	Hidden    []string          `json:"hidden,omitempty"`  // masked in the log alone
	TimeoutMS int64             `json:"timeout_ms,omitempty"`
	GraceMS   int64             `json:"grace_ms,omitempty"`
	WaitMS    int64             `json:"wait_ms,omitempty"` // for the end, before the answer: a short step is one call; at most MaxExecWait
}

// The states of an execution.
const (
	Started   = "STARTED"
	Completed = "COMPLETED" // exit code 0
	Failed    = "FAILED"
)

// Why an execution failed.
const (
	CodeExit    = "exit"      // the command ended with another code than 0, or by a signal
	CodeTimeout = "timeout"   // it ran longer than timeout_ms
	CodeStart   = "start"     // there is no such program, or it may not be run
	CodeCancel  = "cancelled" // /cancel
)

// Exec is how an execution stands, or how it ended.
type Exec struct {
	Exec     ident.Exec `json:"exec_id"`
	Step     ident.Step `json:"step_id"`
	State    string     `json:"state"`
	Code     string     `json:"error_code,omitempty"`
	Message  string     `json:"message,omitempty"`
	ExitCode int        `json:"exit_code"` // 128+n after signal n; -1 when nothing was started
	Started  time.Time  `json:"started_at"`
	Finished time.Time  `json:"finished_at,omitzero"`
	Stdout   LogSize    `json:"stdout"`
	Stderr   LogSize    `json:"stderr"`
	LogBytes int64      `json:"log_bytes"`     // of the frame stream, once it is whole
	Log      []byte     `json:"log,omitempty"` // the whole frame stream, in an answer of /exec to a short step that ended in time
}

// LogSize counts what one stream printed, as kept.
type LogSize struct {
	Lines int64 `json:"lines"`
	Bytes int64 `json:"bytes"`
}

// CompleteRequest asks for an execution's end.
type CompleteRequest struct {
	Exec   ident.Exec `json:"exec_id"`
	WaitMS int64      `json:"wait_ms,omitempty"` // at most MaxWait; then the state may still be STARTED
}

// CancelRequest asks that an execution be ended.
type CancelRequest struct {
	Exec    ident.Exec `json:"exec_id"`
	GraceMS int64      `json:"grace_ms,omitempty"`
}

// LeaseReply says until when the agent will live without another request.
type LeaseReply struct {
	Worker  ident.Worker `json:"worker_id"`
	Expires time.Time    `json:"expires_at"`
}

// WorkerRequest asks for proof that the agent is now this worker.
type WorkerRequest struct {
	Worker ident.Worker `json:"worker_id"`
}

// Proof shows that the agent is the holder of the worker's certificate.
type Proof struct {
	Cert []byte `json:"cert"` // DER
	Code []byte `json:"code"`
}

// ExitExpired is the exit code of an agent that ended because its lease had run out.
const ExitExpired = 3

// An Order is what a provider tells its agent, one JSON object a line, over a
// pipe that nobody else holds.
type Order struct {
	Op      string       `json:"op"` // take, end
	Worker  ident.Worker `json:"worker_id"`
	Tenant  ident.Tenant `json:"tenant_id,omitempty"`
	Job     ident.Job    `json:"job_id,omitempty"`
	Attempt int          `json:"attempt,omitempty"`
	Dir     string       `json:"dir,omitempty"`      // of this worker; the agent makes workspace/, tmp/ and logs/ in it
	Cert    []byte       `json:"cert,omitempty"`     // DER, of this worker
	Key     []byte       `json:"key,omitempty"`      // Ed25519
	Shared  []byte       `json:"shared,omitempty"`   // with the house, see identity.SharedWith
	Roots   []byte       `json:"roots,omitempty"`    // PEM; none: those of the order before
	Client  string       `json:"client,omitempty"`   // the one SPIFFE id that may call
	LeaseMS int64        `json:"lease_ms,omitempty"` // the agent ends itself when nobody called for so long
	AloneMS int64        `json:"alone_ms,omitempty"` // the same once whoever gives orders has ended; 0: lease_ms
	GraceMS int64        `json:"grace_ms,omitempty"`
}

// A Report is what an agent answers.
type Report struct {
	Op       string       `json:"op"` // ready, taken, ended
	Worker   ident.Worker `json:"worker_id,omitempty"`
	Address  string       `json:"address,omitempty"` // HOST:PORT of its API
	ExitCode int          `json:"exit_code,omitempty"`
	Clean    bool         `json:"clean,omitempty"` // nothing of the job is left: the process may take another
	Error    string       `json:"error,omitempty"`
}
