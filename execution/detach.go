package execution

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/execution/agentclient"
	"fragua.dev/fragua/internal/sqldb"
)

func (x *execution) about() event.About {
	return event.About{
		Tenant: x.Tenant, Key: string(x.job()), Twist: string(x.ID),
		Correlation: x.Because.Correlation, TraceParent: x.Because.TraceParent, At: x.Started,
	}
}

// job returns the job that is told of x: a worker without one has its own name.
func (x *execution) job() ident.Job { return cmp.Or(x.Job, ident.Job(x.Worker)) }

func (x *execution) began() event.Event {
	return event.StepStarted.Event(x.about(), event.StepBegin{Step: x.Step, Job: x.job(), Exec: x.ID, Index: -1, Try: 1, At: x.Started})
}

func (x *execution) ended() event.Event {
	a := x.about()
	a.At = *x.Finished
	if x.State == agentapi.Completed {
		return event.StepCompleted.Event(a, event.StepEnd{
			Step: x.Step, ResultRef: string(x.ID), DurationMS: x.DurationMS, Job: x.job(), Exec: x.ID, Index: -1, Try: 1, Result: x.ExecResult, At: *x.Finished,
		})
	}
	return event.StepFailed.Event(a, event.StepFault{
		Step: x.Step, Code: x.Code, Message: x.Message, Job: x.job(), Exec: x.ID, Index: -1, Try: 1, Last: true,
		DurationMS: x.DurationMS, Result: x.ExecResult, At: *x.Finished,
	})
}

const (
	workerEnded = "its worker has ended"
	// wordTime is how long the worker room's word is waited for when a worker has refused
	// a call: that it was ended is known there, and a little later here.
	wordTime = 2 * time.Second
)

// missed says what became of x's worker before anybody could tell x of it.
func (r *Room) missed(ctx context.Context, x execution) error {
	if x.Request.Job != "" {
		r.mu.Lock()
		defer r.mu.Unlock()
		k := key{x.Tenant, x.Request.Job, x.Request.Attempt}
		if r.attempts[k] == nil && !slices.ContainsFunc(r.left, func(a *attempt) bool { return a.key() == k }) {
			return errors.New("its job has ended")
		}
		return nil
	}
	var lives bool
	err := r.db.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM lone_worker WHERE tenant = $1 AND id = $2)`, string(x.Tenant), string(x.Worker)).Scan(&lives)
	if err != nil || lives {
		return nil // what cannot be known now, its worker will tell
	}
	return errors.New(workerEnded)
}

// detach runs an execution that belongs to no attempt.
func (r *Room) detach(x execution) {
	heard, lost := context.WithCancelCause(r.ctx)
	run := r.register(x, lost)
	r.wg.Go(func() {
		agent := r.cfg.Dial(x.Address, x.Tenant, x.Worker)
		defer agent.Close()
		defer lost(nil)
		defer keepAlive(r.ctx, agent, lost)()
		if err := r.missed(heard, x); err != nil {
			lost(err)
		}
		var ended agentapi.Exec
		err := r.again(heard, func() (err error) {
			ended, err = r.ask(heard, agent, x)
			return err
		})
		var logs *keptLog
		if err == nil {
			ended, logs, err = r.follow(heard, agent, x.Tenant, ended)
		}
		if errors.Is(err, agentclient.ErrRefused) {
			sleep(heard, wordTime)
		}
		if why := context.Cause(heard); err != nil && why != nil {
			err = why
		}
		if r.ctx.Err() != nil {
			return
		}
		close(run.printed)
		o := outcome{exec: x.ID, started: x.Started, at: r.cfg.Now().UTC(), result: spec.NewResult(string(x.ID), -1)}
		if err != nil {
			o.code, o.message = codeLost, err.Error()
			if errors.Is(err, errHidden) {
				o.code = codeSecret
			}
		} else {
			o = (&attempt{Start: event.JobStart{Deadline: o.at.Add(time.Hour)}}).judge(ended)
		}
		x.State, x.Finished, x.DurationMS, x.ExecResult = agentapi.Completed, &o.at, o.ms(), o.result
		if o.code != "" {
			x.State, x.Code, x.Message = agentapi.Failed, o.code, o.message
		}
		x.Request, x.Secrets = nil, nil
		x.Fact = x.ended()
		err = r.db.Write(r.ctx, func(tx *sqldb.Tx) error {
			if err := logs.save(tx); err != nil {
				return err
			}
			if err := saveExec(tx, x); err != nil {
				return err
			}
			return tx.Emit(x.Fact)
		})
		if err != nil && r.ctx.Err() == nil {
			r.cfg.Log.Error("an execution's end cannot be saved", "exec_id", x.ID, "error", err)
		}
		logs.release()
		r.finished(x)
	})
}

// errHidden says that what must be hidden in a log is not known.
var errHidden = errors.New("its log cannot be kept free of the job's secrets")

// ask has a worker run x. What the job's steps are given is hidden in its log: they may
// have left it in the workspace. What is not known cannot be hidden, and nothing is run;
// but what was begun before a restart goes on, as its worker was told then.
func (r *Room) ask(ctx context.Context, agent Agent, x execution) (agentapi.Exec, error) {
	q := *x.Request
	if len(x.Secrets) > 0 {
		secrets, err := r.cfg.Vault.Reveal(ctx, x.Tenant, x.Secrets)
		if err != nil {
			if began, known := agent.Complete(ctx, agentapi.CompleteRequest{Exec: x.ID}); known == nil {
				return began, nil
			}
			return agentapi.Exec{}, fmt.Errorf("%w: %w", errHidden, err)
		}
		q.Hidden = slices.Collect(maps.Values(secrets))
	}
	return agent.Exec(ctx, q)
}

// resumeExecs takes up the executions of POST /exec that had not ended, once.
func (r *Room) resumeExecs(ctx context.Context) error {
	r.resuming.Lock()
	defer r.resuming.Unlock()
	if r.up {
		return nil
	}
	rows, err := r.db.Query(ctx, `SELECT body FROM exec WHERE state = 'STARTED'`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		x, err := decodeExec(rows)
		if err != nil {
			return err
		}
		if x.Request != nil && r.runningExec(x.Tenant, x.ID) == nil {
			r.detach(x)
		}
	}
	r.up = rows.Err() == nil
	return rows.Err()
}

// lone remembers the worker that POST /workers made.
func (r *Room) lone(ctx context.Context, e event.Event, d event.WorkerMade) error {
	if d.Job != "" {
		return nil
	}
	return r.db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(`INSERT INTO lone_worker (tenant, id, address) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, string(e.Tenant), string(d.Worker), d.Address)
		return err
	})
}

// forget ends what POST /exec has begun on a worker that has ended.
func (r *Room) forget(t ident.Tenant, w ident.Worker, job ident.Job, reason string) error {
	if !r.resumed.Load() { // what is not taken up yet would not hear of it any more
		if err := r.resumeExecs(r.ctx); err != nil {
			return err
		}
	}
	r.bereave(t, w, reason)
	if job != "" {
		return nil
	}
	err := r.db.Write(r.ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(`DELETE FROM lone_worker WHERE tenant = $1 AND id = $2`, string(t), string(w))
		return err
	})
	r.bereave(t, w, reason) // what has begun meanwhile, and found the worker there
	return err
}

func (r *Room) bereave(t ident.Tenant, w ident.Worker, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, run := range r.execs {
		if k.tenant == t && run.began.Worker == w && run.lost != nil {
			run.lost(errors.New(reason))
		}
	}
}
