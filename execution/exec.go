package execution

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/sqldb"
)

// An Execution is one run of a command on a worker, as the API shows it.
type Execution struct {
	ID         ident.Exec   `json:"exec_id"`
	Step       ident.Step   `json:"step_id"`
	Job        ident.Job    `json:"job_id,omitempty"`
	Worker     ident.Worker `json:"worker_id,omitempty"`
	State      string       `json:"state" enum:"STARTED,COMPLETED,FAILED"`
	Code       string       `json:"error_code,omitempty"`
	Message    string       `json:"message,omitempty"`
	Started    time.Time    `json:"started_at"`
	Finished   *time.Time   `json:"finished_at,omitempty"`
	DurationMS int64        `json:"duration_ms"`
	spec.ExecResult
}

// An execution is an Execution with what only this room needs of it.
type execution struct {
	Execution
	Tenant  ident.Tenant          `json:"tenant_id"`
	Attempt int                   `json:"attempt"`
	Fact    event.Event           `json:"fact,omitzero"`     // that told its end
	Address string                `json:"address,omitempty"` // of a POST /exec: where it runs,
	Request *agentapi.ExecRequest `json:"request,omitempty"` // and what was asked for,
	Secrets []string              `json:"secrets,omitempty"` // and names of those that the job's steps are given
	Because event.Cause           `json:"because,omitzero"`
	Hash    []byte                `json:"hash,omitempty"` // of that, or of the command of a job's step
}

// hashOf tells what was asked for from what is asked for under the same name.
func hashOf(asked any) []byte {
	b, err := json.Marshal(asked)
	if err != nil {
		panic("execution: " + err.Error()) // texts and numbers: it cannot fail
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

// asks says whether x is what o asks for. A job's step is asked for by its
// command: what else it runs with is the job's.
func (x execution) asks(o execOrder) bool {
	if x.Attempt == 0 {
		return bytes.Equal(x.Hash, hashOf(o))
	}
	return bytes.Equal(x.Hash, hashOf(o.Command)) && (o.Job == "" || o.Job == x.Job) && (o.Exec == "" || o.Exec == x.ID)
}

// begunBy is a job's step as it begins.
func begunBy(a *attempt, x agentapi.Exec) execution {
	return execution{Execution: Execution{
		ID: x.Exec, Step: a.stepID(), Job: a.Start.Job, Worker: a.Start.Worker, State: agentapi.Started,
		Started: x.Started, ExecResult: spec.NewResult(string(x.Exec), -1),
	}, Tenant: a.Tenant, Attempt: a.Start.Attempt, Hash: hashOf(a.step().Argv())}
}

func executionOf(a *attempt, o outcome) execution {
	x := execution{Execution: Execution{
		ID: o.exec, Step: a.stepID(), Job: a.Start.Job, Worker: a.Start.Worker, State: agentapi.Completed,
		Started: o.started, Finished: &o.at, DurationMS: o.ms(), ExecResult: o.result,
	}, Tenant: a.Tenant, Attempt: a.Start.Attempt, Hash: hashOf(a.step().Argv())}
	if o.code != "" {
		x.State, x.Code, x.Message = agentapi.Failed, o.code, o.message
	}
	return x
}

func saveExec(tx *sqldb.Tx, x execution) error {
	body, err := json.Marshal(x)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO exec (tenant, id, job, attempt, step, state, body) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (tenant, id) DO UPDATE SET state = excluded.state, body = excluded.body`,
		string(x.Tenant), string(x.ID), string(x.Job), x.Attempt, string(x.Step), x.State, body)
	return err
}

func decodeExec(row interface{ Scan(...any) error }) (execution, error) {
	var (
		body []byte
		x    execution
	)
	if err := row.Scan(&body); err != nil {
		return x, err
	}
	return x, json.Unmarshal(body, &x)
}

func (r *Room) readExec(ctx context.Context, t ident.Tenant, id ident.Exec) (execution, error) {
	return decodeExec(r.db.QueryRow(ctx, `SELECT body FROM exec WHERE tenant = $1 AND id = $2`, string(t), string(id)))
}

// running is an execution that has not ended, for those who wait for it.
type running struct {
	began   execution               // as it was when it began
	lost    context.CancelCauseFunc // of a POST /exec: its worker has ended
	printed chan struct{}           // closed when its log is whole
	done    chan struct{}           // closed when its end is saved
}

func (r *Room) register(x execution, lost context.CancelCauseFunc) *running {
	r.mu.Lock()
	defer r.mu.Unlock()
	run := &running{began: x, lost: lost, printed: make(chan struct{}), done: make(chan struct{})}
	r.execs[execKey{x.Tenant, x.ID}] = run
	return run
}

func (r *Room) finished(x execution) {
	k := execKey{x.Tenant, x.ID}
	r.mu.Lock()
	defer r.mu.Unlock()
	if run := r.execs[k]; run != nil {
		delete(r.execs, k)
		close(run.done)
	}
}

func (r *Room) runningExec(t ident.Tenant, id ident.Exec) *running {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.execs[execKey{t, id}]
}

const (
	comeTime = 3 * time.Second // for an execution of a job that is being taken up to be found
	comeLook = 20 * time.Millisecond
)

// execution finds one by its name; run is nil if it does not go on. After a start those
// of jobs that go on are found only when their workers have answered.
func (r *Room) execution(ctx context.Context, t ident.Tenant, id ident.Exec) (run *running, x execution, err error) {
	late := time.NewTimer(comeTime)
	defer late.Stop()
	for {
		run = r.runningExec(t, id)
		x, err = r.readExec(ctx, t, id)
		switch none := errors.Is(err, sqldb.ErrNoRows); {
		case none && run != nil:
			return run, run.began, nil // a job's step has no row before its end
		case !none:
			return run, x, err
		case !r.expects(t, id):
			return nil, x, absent("execution")
		}
		select {
		case <-time.After(comeLook):
		case <-late.C:
			return nil, x, absent("execution")
		case <-ctx.Done():
			return nil, x, ctx.Err()
		}
	}
}

// expects says whether a name is one that a step of an attempt at work has, or will have.
func (r *Room) expects(t ident.Tenant, id ident.Exec) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	of := func(a *attempt) bool {
		return a.Tenant == t && slices.ContainsFunc(a.Start.Steps, func(s ident.Step) bool { return strings.HasPrefix(string(id), execPrefix(s)) })
	}
	for _, w := range r.attempts {
		if of(w.a) {
			return true
		}
	}
	return slices.ContainsFunc(r.left, of)
}

// execOfStep returns the execution that a step's id names: the one that runs, the
// one of an earlier POST /exec, or the last try of a job's own step.
func (r *Room) execOfStep(ctx context.Context, t ident.Tenant, s ident.Step) (execution, error) {
	r.mu.Lock()
	for k, run := range r.execs {
		if k.tenant == t && run.began.Step == s {
			r.mu.Unlock()
			return run.began, nil
		}
	}
	r.mu.Unlock()
	x, err := decodeExec(r.db.QueryRow(ctx, `SELECT body FROM exec WHERE step = $2 AND attempt = 0 AND tenant || '' = $1`, string(t), string(s)))
	if !errors.Is(err, sqldb.ErrNoRows) {
		return x, err
	}
	from := execPrefix(s) // the names of its tries begin with it, and lie together
	return decodeExec(r.db.QueryRow(ctx, `SELECT body FROM exec WHERE tenant = $1 AND id > $2 AND id < $3 AND step = $4 AND attempt > 0
		ORDER BY attempt DESC, length(id) DESC, id DESC LIMIT 1`, string(t), from, from+"~", string(s)))
}

// owned says whether a step's id belongs to a job that is being worked on: the
// job begins it by itself.
func (r *Room) owned(t ident.Tenant, s ident.Step) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, w := range r.attempts {
		if k.tenant != t {
			continue
		}
		for _, own := range w.a.Start.Steps {
			if s == own || strings.HasPrefix(string(s), string(own)+".") { // with a dot: a further try
				return true
			}
		}
	}
	return false
}

// cutRound returns the mark of a repeat in an event's id.
func cutRound(id string) (round string, again bool) {
	i := strings.LastIndex(id, ".r")
	if i < 0 {
		return "", false
	}
	return id[i:], true
}

// overlay is two folders of migrations seen as one; names must differ.
type overlay [2]fs.FS

func (o overlay) Open(name string) (fs.File, error) {
	f, err := o[0].Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return o[1].Open(name)
	}
	return f, err
}

// ReadDir lists both folders.
func (o overlay) ReadDir(name string) ([]fs.DirEntry, error) {
	a, err := fs.ReadDir(o[0], name)
	if err != nil {
		return nil, err
	}
	b, err := fs.ReadDir(o[1], name)
	return append(a, b...), err
}

// Glob lists what matches in both folders.
func (o overlay) Glob(pattern string) ([]string, error) {
	a, err := fs.Glob(o[0], pattern)
	if err != nil {
		return nil, err
	}
	b, err := fs.Glob(o[1], pattern)
	return append(a, b...), err
}
