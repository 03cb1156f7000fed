// Package provider is the port to whatever makes workers: processes here,
// containers and pods elsewhere.
package provider

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/identity"
	"fragua.dev/fragua/contract/spec"
)

// A Provider makes, watches and ends workers. A worker is a machine of its own
// as far as the provider can make it one: a workspace, an identity, and the API
// of package agentapi, for one job.
//
// The life of a worker:
//
//	Create             reserves what it needs; nothing of it serves yet
//	ConfigureSecurity  gives it its identity; when this returns it serves its API
//	                   at Made.Address to the execution room, and to nobody else
//	Logs, PortForward  while it lives
//	Terminate          ends it and everything it started; nothing of it is left
//	                   when this returns: no process, no file
//	Events             tells, once, of each worker that ended without Terminate;
//	                   whatever it had started is gone by then
//
// Calls for different workers may be made at the same time; calls for one worker
// are made one after the other, but for Terminate, which may interrupt any of
// them. Create with the id of a worker that exists, ConfigureSecurity of one that
// has its identity, and Terminate of one that is gone, do nothing and succeed: the
// caller may have been killed and not know. A worker outlives the process that
// made it, as long as its lease is renewed; Adopt finds it again.
type Provider interface {
	// Kind returns process, docker, kubernetes, …
	Kind() string
	// Create reserves a worker. It fails with ErrCapacity when the machine has
	// nothing left, which passes, and with ErrSpec for what it can never make.
	Create(ctx context.Context, r Request) (Made, error)
	ConfigureSecurity(ctx context.Context, w ident.Worker, s Security) error
	// Terminate ends w: TERM to what it runs, KILL after grace. It returns the
	// worker's exit code, 0 unless something went wrong with the worker itself.
	Terminate(ctx context.Context, w ident.Worker, grace time.Duration) (exitCode int, err error)
	// Logs returns what the worker itself said (not its steps), to its end so far.
	Logs(ctx context.Context, w ident.Worker) (io.ReadCloser, error)
	// PortForward connects to a port that a step of w listens on.
	PortForward(ctx context.Context, w ident.Worker, port uint16) (net.Conn, error)
	// Events is closed by Close.
	Events() <-chan Ended
	// Adopt takes over the workers that an earlier process made and recorded, and
	// ends whatever else it finds of that process's. It returns those that live.
	// It is called once, before any other method.
	Adopt(ctx context.Context, known []Made) (alive []ident.Worker, err error)
	// Close lets go of all workers without ending those that have work: they live
	// on until their lease ends or someone adopts them.
	Close() error
}

// MaxByHand is how many workers without a job there may be at the same time. They are
// made by hand, and scheduling does not know of them: a provider does not count them
// among those that it makes for jobs, for then anybody could stop everybody's jobs.
// Who tries something by hand needs one or two, and each is a process of this machine.
const MaxByHand = 64

// Errors of Create, for errors.Is.
var (
	ErrCapacity = errors.New("no capacity for another worker")
	ErrSpec     = errors.New("no such worker can be made")
	ErrGone     = errors.New("no such worker")
)

// A Request says which worker to make.
type Request struct {
	Worker  ident.Worker
	Tenant  ident.Tenant
	Job     ident.Job
	Attempt int // fences the worker: it refuses another attempt's work
	Runtime spec.RuntimeSpec
}

// Made is a worker as its provider knows it; it is recorded, and given to Adopt
// after a restart.
type Made struct {
	Worker  ident.Worker `json:"worker_id"`
	Tenant  ident.Tenant `json:"tenant_id"`
	Job     ident.Job    `json:"job_id,omitempty"`
	Address string       `json:"address"` // HOST:PORT of its API
	Handle  string       `json:"handle"`  // the provider's own: a pid and its start time, a container's id
}

// Security is who a worker is, and who may call it.
type Security struct {
	Certificate identity.Certificate // with the id identity.Worker(tenant, worker)
	Roots       []byte               // PEM
	Client      string               // the one SPIFFE id that may call
	Lease       time.Duration        // the worker ends itself when nobody called for so long
	Alone       time.Duration        // the same once the provider is closed, or its process has ended; 0 is Lease
}

// Ended tells of a worker that ended unasked.
type Ended struct {
	Worker   ident.Worker
	ExitCode int
	Expired  bool   // its lease had run out
	Reason   string // for people: killed by signal 9
}
