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

// detach runs an execution that belongs to no attempt.
func (r *Room) detach(x execution) {
	run := r.register(x)
	r.wg.Go(func() {
		agent := r.cfg.Dial(x.Address, x.Tenant, x.Worker)
		defer agent.Close()
		heard, silent := context.WithCancelCause(r.ctx)
		defer silent(nil)
		defer keepAlive(r.ctx, agent, silent)()
		var ended agentapi.Exec
		err := r.again(r.ctx, func() (err error) {
			ended, err = r.ask(agent, x)
			return err
		})
		var logs *keptLog
		if err == nil {
			ended, logs, err = r.follow(heard, agent, x.Tenant, ended)
		}
		if err != nil && errors.Is(context.Cause(heard), errSilent) {
			err = errSilent
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
func (r *Room) ask(agent Agent, x execution) (agentapi.Exec, error) {
	q := *x.Request
	if len(x.Secrets) > 0 {
		secrets, err := r.cfg.Vault.Reveal(r.ctx, x.Tenant, x.Secrets)
		if err != nil {
			if began, known := agent.Complete(r.ctx, agentapi.CompleteRequest{Exec: x.ID}); known == nil {
				return began, nil
			}
			return agentapi.Exec{}, fmt.Errorf("%w: %w", errHidden, err)
		}
		q.Hidden = slices.Collect(maps.Values(secrets))
	}
	return agent.Exec(r.ctx, q)
}

// resumeExecs takes up the executions of POST /exec that had not ended.
func (r *Room) resumeExecs(ctx context.Context) error {
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

func (r *Room) forget(t ident.Tenant, w ident.Worker, job ident.Job) error {
	if job != "" {
		return nil
	}
	return r.db.Write(r.ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(`DELETE FROM lone_worker WHERE tenant = $1 AND id = $2`, string(t), string(w))
		return err
	})
}
