package execution

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"fragua.dev/fragua/contract/artifacts"
	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/execution/agentclient"
	"fragua.dev/fragua/internal/sqldb"
)

// work is an attempt that is being worked on.
type work struct {
	room  *Room
	a     *attempt
	agent Agent

	ctx      context.Context // ends when the attempt is called off, or the room closes
	cancel   context.CancelCauseFunc
	heard    context.Context // ends with ctx, and when the worker has fallen silent
	silent   context.CancelCauseFunc
	recorded chan struct{} // closed when the attempt is on record
	once     sync.Once
	turn     chan struct{} // taken by who writes the row
	said     []event.Event // facts that the next save takes along
}

// A calledOff is why work ends before its time.
type calledOff struct{ code, reason string }

func (c calledOff) Error() string { return c.code + ": " + c.reason }

func newWork(r *Room, a *attempt) *work {
	w := &work{room: r, a: a, recorded: make(chan struct{}), turn: make(chan struct{}, 1)}
	w.ctx, w.cancel = context.WithCancelCause(event.Because(r.ctx, event.Cause{Correlation: a.Correlation, TraceParent: a.Trace}))
	w.heard, w.silent = context.WithCancelCause(w.ctx)
	return w
}

func (w *work) end(code, reason string) { w.cancel(calledOff{code, reason}) }

// off returns why the work was called off, if it was.
func (w *work) off() (calledOff, bool) {
	var c calledOff
	return c, errors.As(context.Cause(w.ctx), &c)
}

// onRecord waits for the attempt's row. A quick step writes it together with its
// result; for others it is written after a moment.
func (w *work) onRecord(ctx context.Context) error {
	t := time.NewTimer(recordTime)
	defer t.Stop()
	select {
	case <-w.recorded:
		return nil
	case <-t.C:
	case <-w.room.ctx.Done():
		return w.room.ctx.Err()
	}
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	select {
	case <-w.recorded:
		return nil
	default:
	}
	first := &attempt{Start: w.a.Start, Tenant: w.a.Tenant, Correlation: w.a.Correlation, Trace: w.a.Trace, Try: 1}
	err := w.room.db.Write(ctx, func(tx *sqldb.Tx) error {
		var n int
		err := tx.QueryRow(`SELECT COUNT(*) FROM attempt WHERE tenant = $1 AND job = $2 AND attempt = $3`, string(first.Tenant), string(first.Start.Job), first.Start.Attempt).Scan(&n)
		if err != nil || n > 0 {
			return err
		}
		return saveAttempt(tx, first)
	})
	if err == nil {
		w.once.Do(func() { close(w.recorded) })
	}
	return err
}

// save makes the attempt's progress durable, with what tells of it. It tries
// again until the room closes: a full disk loses nothing.
func (w *work) save(fn func(tx *sqldb.Tx) error, facts ...event.Event) bool {
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	facts = append(w.said, facts...)
	w.said = nil
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := w.room.db.Write(w.room.ctx, func(tx *sqldb.Tx) error {
			if err := saveAttempt(tx, w.a); err != nil {
				return err
			}
			if fn != nil {
				if err := fn(tx); err != nil {
					return err
				}
			}
			return tx.Emit(facts...)
		})
		if err == nil {
			w.once.Do(func() { close(w.recorded) })
			return true
		}
		if w.room.ctx.Err() != nil || errors.Is(err, sqldb.ErrClosed) {
			return false
		}
		w.room.cfg.Log.Error("an attempt's progress cannot be saved", "job_id", w.a.Start.Job, "error", err)
		if !sleep(w.room.ctx, pause+rand.N(pause)) {
			return false
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// run walks the steps until the last one ended, one failed for good, the attempt
// was called off, or the room closes.
func (w *work) run() {
	defer w.cancel(nil)
	a := w.a
	if a.Done {
		return // it was called off before the room took up what was left
	}
	w.agent = w.room.cfg.Dial(a.Start.Address, a.Tenant, a.Start.Worker)
	defer w.agent.Close()
	stop := keepAlive(w.ctx, w.agent, w.silent)
	defer stop()
	secrets, failed := w.prepare()
	for !a.Done {
		var (
			o    outcome
			logs *keptLog
			pre  []event.Event
		)
		if failed != nil {
			o = *failed
		} else if o, logs, pre = w.step(secrets); o.code == "" && a.last() {
			o = w.collect(o)
		}
		if w.room.ctx.Err() != nil {
			return // this process ends; the next one goes on
		}
		if c, is := w.off(); is && o.code != "" {
			o.code, o.message, o.retryable = c.code, c.reason, false
		}
		x := executionOf(a, o)
		fact, wait := a.settle(o)
		x.Fact = fact
		saved := w.save(func(tx *sqldb.Tx) error {
			if err := logs.save(tx); err != nil {
				return err
			}
			if x.ID == "" {
				return nil
			}
			return saveExec(tx, x)
		}, append(pre, fact)...)
		logs.release()
		w.room.finished(x)
		if !saved {
			return
		}
		if wait > 0 && !sleep(w.ctx, wait) && w.room.ctx.Err() != nil {
			return
		}
	}
}

// prepare fetches the secrets, and lays the source into the workspace.
func (w *work) prepare() (secrets map[string]string, failed *outcome) {
	a, now := w.a, w.room.cfg.Now
	fail := func(code, message string) *outcome {
		return &outcome{code: code, message: message, started: now(), at: now(), result: spec.NewResult("", -1)}
	}
	p := w.room.cfg.Principal
	p.Tenant = a.Tenant
	answer := w.room.cfg.Decider.Decide(w.ctx, authz.Question{
		Principal: p, Action: "Job::execute", TraceParent: a.Trace, Correlation: a.Correlation,
		Resource: authz.Resource{Type: "Job", ID: string(a.Start.Job), Tenant: a.Tenant, Attrs: map[string]any{"environment_permitted": true}},
	})
	w.said = append(w.said, answer.Event) // saved with what it lets begin
	if !answer.Permit {
		return nil, fail("denied", answer.Reason)
	}
	if refs := a.Start.Spec.SecretRefs; len(refs) > 0 {
		var err error
		if secrets, err = w.room.cfg.Vault.Reveal(w.ctx, a.Tenant, refs); err != nil {
			return nil, fail(codeSecret, err.Error())
		}
	}
	if s := a.Start.Spec.Source; s != nil && a.Index == 0 && a.Try == 1 && !a.Begun {
		ctx, cancel := w.inTime()
		defer cancel()
		err := w.retry(ctx, func(ctx context.Context) error {
			r, err := w.room.cfg.Keeper.Open(ctx, a.Tenant, spec.ArtifactRef(*s))
			if err != nil {
				return err
			}
			defer r.Close()
			return w.agent.Workspace(ctx, r)
		})
		switch {
		case err != nil && errors.Is(context.Cause(ctx), errSilent):
			return nil, fail(codeLost, errSilent.Error())
		case err != nil && ctx.Err() != nil && w.ctx.Err() == nil:
			o := fail(codeDeadline, a.late())
			o.retryable = true
			return nil, o
		case err == nil, errors.Is(err, agentclient.ErrRefused): // refused: it was laid out, and a step has begun
		case errors.Is(err, agentclient.ErrUnreachable):
			return nil, fail(codeLost, err.Error())
		default:
			return nil, fail(codeSource, err.Error())
		}
	}
	return secrets, nil
}

// inTime returns a context that ends with the attempt's time, or with its worker.
func (w *work) inTime() (context.Context, context.CancelFunc) {
	return context.WithTimeout(w.heard, w.a.deadline().Sub(w.room.cfg.Now()))
}

// retry calls fn until it succeeds, fails for another reason than an unreachable
// worker or artifact room, or that is given up.
func (w *work) retry(ctx context.Context, fn func(context.Context) error) error {
	var left *patience
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := fn(ctx)
		if err == nil || !errors.Is(err, agentclient.ErrUnreachable) && !errors.Is(err, artifacts.ErrAway) || ctx.Err() != nil {
			return err
		}
		if left == nil {
			left = patient(w.room.cfg.Now)
			defer left.stop()
		}
		if left.ended() {
			return fmt.Errorf("no answer for %v: %w", lostAfter, err)
		}
		if !sleep(ctx, pause+rand.N(pause)) {
			return err
		}
	}
}

// collect keeps the artifacts of a job whose last step ended well.
func (w *work) collect(o outcome) outcome {
	ctx, cancel := w.inTime()
	defer cancel()
	for _, f := range w.a.Start.Spec.Artifacts {
		ref := spec.ArtifactRef{Repository: cmp.Or(f.Repository, spec.DefaultRepository), Name: f.Name, Version: f.Version}
		if ref.Version == "" {
			ref.Version = string(w.a.Start.Job)
		}
		err := w.retry(ctx, func(ctx context.Context) error {
			content, _, err := w.agent.File(ctx, f.Path)
			if err != nil {
				return err
			}
			defer content.Close()
			return w.room.cfg.Keeper.Keep(ctx, w.a.Tenant, ref, content)
		})
		if err != nil {
			o.code, o.message = codeArtifact, fmt.Sprintf("artifact %s: %v", ref, err)
			switch {
			case errors.Is(context.Cause(ctx), errSilent):
				o.code, o.message = codeLost, errSilent.Error()
			case ctx.Err() != nil && w.ctx.Err() == nil:
				o.code, o.message, o.retryable = codeDeadline, w.a.late()+": artifact "+ref.String()+" was not kept yet", true
			case errors.Is(err, agentclient.ErrUnreachable):
				o.code = codeLost
			}
			return o
		}
		o.result.Artifacts = append(o.result.Artifacts, ref)
	}
	return o
}
