package execution

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/sqldb"
)

type (
	execOrder struct {
		Exec      ident.Exec        `json:"exec_id,omitempty" maxLength:"128" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$" doc:"Made by the platform unless given"`
		Step      ident.Step        `json:"step_id" maxLength:"128" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$" doc:"The same again starts nothing, and answers the same execution"`
		Job       ident.Job         `json:"job_id,omitempty" maxLength:"128" doc:"A running job, on whose worker the command runs; beside the worker_id of one without a job a label"`
		Worker    ident.Worker      `json:"worker_id,omitempty" maxLength:"128" doc:"A worker that POST /workers made, in the place of a job's"`
		Name      string            `json:"name,omitempty" maxLength:"128"`
		Command   []string          `json:"command" minItems:"1" maxItems:"4096" nullable:"false"`
		Env       map[string]string `json:"env,omitempty"`
		TimeoutMS int64             `json:"timeout_ms,omitempty" minimum:"1" maximum:"604800000"`
	}
	completeOrder struct {
		Exec   ident.Exec `json:"exec_id" maxLength:"128"`
		WaitMS int64      `json:"wait_ms,omitempty" minimum:"0" maximum:"30000" doc:"How long to wait for the end; 30000 unless given"`
	}
	execReply struct {
		Status int
		Body   Execution
	}
)

// Routes adds the room's part of the API.
func (r *Room) Routes(api huma.API) {
	op := func(method, path, id, summary string) huma.Operation {
		return huma.Operation{Method: method, Path: path, OperationID: id, Summary: summary, Tags: []string{"executions"}}
	}
	exec := op(http.MethodPost, "/exec", "exec", "Run a step")
	exec.DefaultStatus = http.StatusCreated
	huma.Register(api, httpapi.Again(exec), r.exec)
	complete := op(http.MethodPost, "/complete", "complete", "Wait for a step's end")
	complete.DefaultStatus = http.StatusOK
	huma.Register(api, httpapi.Also(complete, http.StatusAccepted, "It has not ended yet: ask again"), r.complete)
	huma.Register(api, op(http.MethodGet, "/executions", "list-executions", "Executions of a job that have ended, of all its attempts"), r.list)
	logs := op(http.MethodGet, "/logs/{exec_id}", "logs", "Stream an execution's log")
	logs.Responses = map[string]*huma.Response{
		"200": {Description: "The log", Content: map[string]*huma.MediaType{"text/plain": {}, "application/x-ndjson": {}, "text/event-stream": {}}},
		"206": {Description: "The part that Range asks for", Content: map[string]*huma.MediaType{"text/plain": {}}},
	}
	huma.Register(api, logs, r.log)
}

func (r *Room) jobResource(t ident.Tenant, job ident.Job) authz.Resource {
	return authz.Resource{Type: "Job", ID: string(job), Tenant: t, Attrs: map[string]any{"environment_permitted": true}}
}

// resource is the job that something runs for; where there is none, the worker that it runs
// on: no job's id has a slash.
func (r *Room) resource(t ident.Tenant, job ident.Job, w ident.Worker) authz.Resource {
	if job == "" {
		job = ident.Job("worker/" + w)
	}
	return r.jobResource(t, job)
}

// anyJob stands in a decision about what no job is known of.
const anyJob = "*"

// An absent is something that is not there.
type absent string

func (a absent) Error() string { return "no such " + string(a) }

// unless returns err; when it is an absent, the answer to that.
func (r *Room) unless(ctx context.Context, err error, action string, job ident.Job) error {
	var what absent
	if !errors.As(err, &what) {
		return err
	}
	return r.gate.Absent(ctx, action, r.jobResource(authz.From(ctx).Tenant, job), string(what))
}

// Resolve says what is wrong with an order, besides what its schema knows.
func (o *execOrder) Resolve(huma.Context) []error {
	faults := spec.Job{Command: o.Command, Env: o.Env, TimeoutMS: o.TimeoutMS}.Validate()
	for at, id := range map[string]string{"step_id": string(o.Step), "exec_id": string(o.Exec)} {
		if !ident.Valid(id) && (at == "step_id" || id != "") {
			faults = append(faults, spec.Fault{Path: at, Message: "want 1 to 128 letters, digits, '.', '_' or '-', beginning with a letter or digit"})
		}
	}
	if ofJob(o.Exec) {
		faults = append(faults, spec.Fault{Path: "exec_id", Message: "names that begin with exe_ and have two numbers behind are those of jobs' steps"})
	}
	if o.Job == "" && o.Worker == "" {
		faults = append(faults, spec.Fault{Path: "job_id", Message: "say where to run it: job_id or worker_id"})
	}
	return httpapi.Faults("body", faults)
}

// exec runs a command on the worker of a running job, or on one without a job.
func (r *Room) exec(ctx context.Context, in *struct{ Body execOrder }) (*execReply, error) {
	o, t := in.Body, authz.From(ctx).Tenant
	asked := o
	old, err := r.execOfStep(ctx, t, o.Step)
	if err == nil {
		return r.same(ctx, old, asked)
	}
	if !errors.Is(err, sqldb.ErrNoRows) {
		return nil, err
	}
	at, err := r.place(ctx, t, o)
	if err != nil {
		return nil, r.unless(ctx, err, "Job::execute", o.Job)
	}
	answer, err := r.gate.Ask(ctx, "Job::execute", r.resource(t, o.Job, o.Worker), nil)
	if err != nil {
		return nil, err
	}
	if r.owned(t, o.Step) {
		return nil, httpapi.Conflict("this is a step of a job that is running, which begins it by itself")
	}
	if o.Exec == "" {
		o.Exec = ident.Exec(r.cfg.IDs("exe"))
	}
	if o.TimeoutMS == 0 {
		o.TimeoutMS = spec.DefaultTimeoutMS
	}
	x := execution{
		Execution: Execution{
			ID: o.Exec, Step: o.Step, Job: o.Job, Worker: at.worker, State: agentapi.Started, Started: r.cfg.Now().UTC(),
			ExecResult: spec.NewResult(string(o.Exec), -1),
		},
		Tenant: t, Address: at.address, Secrets: at.secrets, Because: event.Cause{Correlation: httpapi.Correlation(ctx), TraceParent: httpapi.TraceParent(ctx)}, Hash: hashOf(asked),
		Request: &agentapi.ExecRequest{
			Exec: o.Exec, Step: o.Step, Job: at.job, Attempt: at.attempt, Name: o.Name, Command: o.Command, Env: o.Env, TimeoutMS: o.TimeoutMS,
		},
	}
	var had *execution
	err = r.db.Write(ctx, func(tx *sqldb.Tx) error {
		had = nil
		e, err := decodeExec(tx.QueryRow(`SELECT body FROM exec WHERE step = $2 AND attempt = 0 AND tenant || '' = $1`, string(t), string(o.Step)))
		if err == nil {
			had = &e
			return tx.Emit(answer.Event)
		}
		if !errors.Is(err, sqldb.ErrNoRows) {
			return err
		}
		if _, err := decodeExec(tx.QueryRow(`SELECT body FROM exec WHERE tenant = $1 AND id = $2`, string(t), string(o.Exec))); err == nil {
			return httpapi.Conflict("another execution has this exec_id")
		}
		if err := saveExec(tx, x); err != nil {
			return err
		}
		return tx.Emit(answer.Event, x.began())
	})
	if err != nil {
		return nil, err
	}
	if had != nil {
		return r.same(ctx, *had, asked)
	}
	r.detach(x)
	return &execReply{Status: http.StatusCreated, Body: x.Execution}, nil
}

func (r *Room) same(ctx context.Context, old execution, asked execOrder) (*execReply, error) {
	if err := r.gate.Pass(ctx, "Job::execute", r.resource(old.Tenant, old.Job, old.Worker)); err != nil {
		return nil, err
	}
	if !old.asks(asked) {
		return nil, httpapi.Conflict("another execution has this step_id")
	}
	return &execReply{Status: http.StatusOK, Body: old.Execution}, nil
}

// A place is where a command runs: on a worker, for the attempt that is at work there, if
// there is one.
type place struct {
	address string
	worker  ident.Worker
	job     ident.Job
	attempt int
	secrets []string // names of those that the attempt is given
}

// place finds the worker that an order is for. A worker without a job may be told one
// as a label; not one that is or was a job's, whose story would go on after its end.
func (r *Room) place(ctx context.Context, t ident.Tenant, o execOrder) (place, error) {
	if a := r.runs(t, o.Job); a != nil && (o.Worker == "" || o.Worker == a.Start.Worker) {
		return place{a.Start.Address, a.Start.Worker, o.Job, a.Start.Attempt, a.Start.Spec.SecretRefs}, nil
	}
	ofJob := o.Worker == "" // none but a job's own worker will do
	if !ofJob && o.Job != "" {
		err := r.db.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM attempt WHERE tenant = $1 AND job = $2)`, string(t), string(o.Job)).Scan(&ofJob)
		if err != nil {
			return place{}, err
		}
	}
	if ofJob {
		return place{}, absent("running job")
	}
	address, err := r.addressOf(ctx, t, o.Worker)
	return place{address: address, worker: o.Worker}, err
}

// runs returns the attempt of a job that is at work; nil if there is none.
func (r *Room) runs(t ident.Tenant, job ident.Job) *attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, w := range r.attempts {
		if k.tenant == t && k.job == job {
			return w.a
		}
	}
	return nil
}

// heardTime bounds how long a worker is waited for that was made a moment ago, and of
// which this room has yet to hear.
const heardTime = 500 * time.Millisecond

// addressOf returns where a worker without a job serves its API.
func (r *Room) addressOf(ctx context.Context, t ident.Tenant, w ident.Worker) (address string, err error) {
	for since := r.cfg.Now(); ; {
		err := r.db.QueryRow(ctx, `SELECT address FROM lone_worker WHERE tenant = $1 AND id = $2`, string(t), string(w)).Scan(&address)
		switch {
		case !errors.Is(err, sqldb.ErrNoRows):
			return address, err
		case r.cfg.Now().Sub(since) > heardTime || !sleep(ctx, heardTime/50):
			return "", absent("worker")
		}
	}
}

// complete waits for an execution's end, for a while.
func (r *Room) complete(ctx context.Context, in *struct{ Body completeOrder }) (*execReply, error) {
	t := authz.From(ctx).Tenant
	run, x, err := r.execution(ctx, t, in.Body.Exec)
	if err != nil {
		return nil, r.unless(ctx, err, "Job::execute", anyJob)
	}
	if err := r.gate.Pass(ctx, "Job::execute", r.resource(t, x.Job, x.Worker)); err != nil {
		return nil, err
	}
	if run != nil {
		wait := time.Duration(in.Body.WaitMS) * time.Millisecond
		if wait == 0 {
			wait = agentapi.MaxWait * time.Millisecond
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-run.done:
		case <-timer.C:
		case <-ctx.Done():
		}
		if x, err = r.readExec(ctx, t, in.Body.Exec); errors.Is(err, sqldb.ErrNoRows) {
			x, err = run.began, nil
		}
		if err != nil {
			return nil, err
		}
	}
	out := &execReply{Status: http.StatusOK, Body: x.Execution}
	if x.State == agentapi.Started {
		out.Status = http.StatusAccepted
	}
	return out, nil
}

func (r *Room) log(ctx context.Context, in *struct {
	ID     string `path:"exec_id" maxLength:"128"`
	Follow bool   `query:"follow" doc:"Go on until the step ends"`
	Tail   int64  `query:"tail" minimum:"0" maximum:"1000000" doc:"Only the last lines"`
	From   int64  `query:"from" minimum:"0" doc:"From this line on"`
	To     int64  `query:"to" minimum:"0" doc:"Up to this line"`
}) (*huma.StreamResponse, error) {
	t, id := authz.From(ctx).Tenant, ident.Exec(in.ID)
	run, x, err := r.execution(ctx, t, id)
	if err != nil {
		return nil, r.unless(ctx, err, "Job::read", anyJob)
	}
	if err := r.gate.Pass(ctx, "Job::read", r.resource(t, x.Job, x.Worker)); err != nil {
		return nil, err
	}
	over := func() bool {
		if run == nil {
			return true
		}
		select {
		case <-run.done:
			return true
		default:
			return false
		}
	}
	done, ok := r.logs.Reader()
	if !ok {
		return nil, httpapi.TooMany(5*time.Second, "too many logs are being read")
	}
	return &huma.StreamResponse{Body: func(c huma.Context) {
		defer done()
		req, w := humago.Unwrap(c)
		r.logs.Serve(w, req, t, id, over)
	}}, nil
}
