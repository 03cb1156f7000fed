package worker

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/identity"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/sqldb"
	"fragua.dev/fragua/worker/provider"
)

//go:embed schema/*.sql
var schemaFiles embed.FS

func schema() fs.FS {
	sub, err := fs.Sub(schemaFiles, "schema")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}

// A State is where a worker stands.
type State string

// The states of a worker.
const (
	Creating    State = "CREATING"
	Running     State = "RUNNING"
	Terminating State = "TERMINATING"
	Terminated  State = "TERMINATED"
	Failed      State = "FAILED"
)

// A Worker is one worker, as the API shows it.
type Worker struct {
	ID       ident.Worker     `json:"worker_id"`
	Tenant   ident.Tenant     `json:"tenant_id"`
	State    State            `json:"state" enum:"CREATING,RUNNING,TERMINATING,TERMINATED,FAILED"`
	Provider string           `json:"provider_id"`
	Runtime  spec.RuntimeSpec `json:"runtime_spec"`
	Job      ident.Job        `json:"job_id,omitempty"`
	Attempt  int              `json:"attempt,omitempty"`
	Node     ident.Node       `json:"node_id,omitempty"`
	Identity string           `json:"spiffe_id"`
	ExitCode *int             `json:"exit_code,omitempty"`
	Reason   string           `json:"reason,omitempty" doc:"Why it failed, or was ended"`
	Created  time.Time        `json:"created_at"`
	Ended    *time.Time       `json:"ended_at,omitempty"`
}

// A worker is a Worker with what only this room needs of it.
type worker struct {
	Worker
	Assignment  ident.Assignment `json:"assignment_id,omitempty"`
	Address     string           `json:"address,omitempty"`
	Handle      string           `json:"handle,omitempty"`
	Correlation string           `json:"correlation_id,omitempty"`
	Trace       string           `json:"traceparent,omitempty"`
	Round       int              `json:"round,omitempty"` // of saying again that it is there
}

// workerID names the worker of an assignment: always the same one. It begins with
// the time in the job's name, if that has one, so that workers that were made
// together lie together in the database.
func workerID(t ident.Tenant, a ident.Assignment) ident.Worker {
	const sorts = 10 // characters of a generated name that say when
	when, generated := strings.CutPrefix(string(a), "asg_job_")
	if generated && len(when) > sorts {
		when = when[:sorts]
	} else {
		when = ""
	}
	sum := sha256.Sum256([]byte(string(t) + "/" + string(a)))
	return ident.Worker("wrk_" + when + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16])))
}

// of returns the worker that an assignment asks for.
func of(e event.Event, a event.Assignment, now time.Time) *worker {
	id := workerID(e.Tenant, a.Assignment)
	return &worker{
		Worker: Worker{
			ID: id, Tenant: e.Tenant, State: Creating, Provider: a.Provider, Runtime: a.Runtime, Job: a.Job, Attempt: a.Attempt,
			Node: a.Node, Identity: identity.Worker(e.Tenant, id), Created: now,
		},
		Assignment: a.Assignment, Correlation: e.CorrelationID, Trace: e.TraceParent,
	}
}

// runtime says in short what the worker is made of; a provider may know no image.
func (w *worker) runtime() string {
	l := w.Runtime.Limits
	s := fmt.Sprintf("cpu_m=%d memory_mb=%d", l.CPUm, l.MemoryMB)
	if l.GPU > 0 {
		s += fmt.Sprintf(" gpu=%d", l.GPU)
	}
	if l.IO > 0 {
		s += fmt.Sprintf(" io=%d", l.IO)
	}
	return strings.TrimSpace(w.Runtime.Image + " " + s)
}

func (w *worker) over() bool { return w.State == Terminated || w.State == Failed }

func (w *worker) made() provider.Made {
	return provider.Made{Worker: w.ID, Tenant: w.Tenant, Job: w.Job, Address: w.Address, Handle: w.Handle}
}

func (w *worker) about(twist string, now time.Time) event.About {
	key := string(w.Job)
	if key == "" {
		key = string(w.ID)
	}
	if twist != "" {
		twist = "." + twist
	}
	return event.About{Tenant: w.Tenant, Key: key, Twist: string(w.ID) + twist, Correlation: w.Correlation, TraceParent: w.Trace, At: now}
}

// ready says that w serves its API.
func (w *worker) ready(now time.Time) event.Event {
	twist := ""
	if w.Round > 0 {
		twist = "r" + strconv.Itoa(w.Round)
	}
	return event.WorkerCreated.Event(w.about(twist, now), event.WorkerMade{
		Worker: w.ID, Provider: w.Provider, Runtime: w.Runtime, Job: w.Job, Attempt: w.Attempt, Assignment: w.Assignment,
		Node: w.Node, Address: w.Address, Identity: w.Identity,
	})
}

// end takes note that w ended as it was told.
func (w *worker) end(now time.Time, exitCode int) event.Event {
	w.State, w.Ended, w.ExitCode = Terminated, &now, &exitCode
	return w.endFact()
}

// fail takes note that w ended, or never was, unasked.
func (w *worker) fail(now time.Time, reason string) event.Event {
	w.State, w.Ended, w.Reason = Failed, &now, reason
	return w.endFact()
}

// expired says that nobody called w for longer than its lease.
func (w *worker) expired(now time.Time) event.Event {
	return event.WorkerLease.Event(w.about("", now), event.Lease{Worker: w.ID, Job: w.Job, Attempt: w.Attempt, Expired: now})
}

// endFact says how w ended.
func (w *worker) endFact() event.Event {
	if w.State == Failed {
		return event.WorkerFailed.Event(w.about("", *w.Ended), event.WorkerLoss{
			Worker: w.ID, Reason: w.Reason, Job: w.Job, Attempt: w.Attempt, Assignment: w.Assignment,
		})
	}
	return event.WorkerTerminated.Event(w.about("", *w.Ended), event.WorkerEnd{
		Worker: w.ID, ExitCode: *w.ExitCode, Job: w.Job, Attempt: w.Attempt, Assignment: w.Assignment,
	})
}

// errAbsent says that there is no such worker, for this tenant.
var errAbsent = errors.New("no such worker")

func decode(row interface{ Scan(...any) error }) (*worker, error) {
	var body []byte
	err := row.Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errAbsent
	}
	if err != nil {
		return nil, err
	}
	w := &worker{}
	return w, json.Unmarshal(body, w)
}

func (r *Room) read(ctx context.Context, t ident.Tenant, id ident.Worker) (*worker, error) {
	return decode(r.db.QueryRow(ctx, `SELECT body FROM worker WHERE tenant = $1 AND id = $2`, string(t), string(id)))
}

// save inserts or updates w.
func (r *Room) save(tx *sqldb.Tx, w *worker, due time.Time) error {
	body, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	live := 1
	if w.over() {
		live = 0
	}
	_, err = tx.Exec(`INSERT INTO worker (tenant, id, job, attempt, state, live, created_ms, due_ms, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (tenant, id) DO UPDATE SET state = excluded.state, live = excluded.live, due_ms = excluded.due_ms, body = excluded.body`,
		string(w.Tenant), string(w.ID), string(w.Job), w.Attempt, string(w.State), live, w.Created.UnixMilli(), due.UnixMilli(), body)
	if err == nil {
		r.known.remember(tx, w)
	}
	return err
}
