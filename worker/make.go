package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/observe"
	"fragua.dev/fragua/internal/sqldb"
	"fragua.dev/fragua/worker/provider"
)

// assigned makes the worker of an assignment. Nothing is written before the
// worker is there: if this process is killed, the assignment comes again, and the
// provider has ended what nobody recorded.
func (r *Room) assigned(ctx context.Context, e event.Event, a event.Assignment) error {
	if !r.nodes[a.Node] {
		return nil // another worker room's node
	}
	w := of(e, a, r.cfg.Now().UTC())
	ctx = observe.FromEvent(ctx, e)
	if round := roundOf(e); round != "" || !bus.Fresh(ctx) {
		old, err := r.read(ctx, w.Tenant, w.ID)
		if err == nil {
			return r.repeat(ctx, round, old)
		}
		if !errors.Is(err, errAbsent) {
			return err
		}
	}
	reason, over, err := r.graves.of(ctx, attemptKey{w.Tenant, w.Job, w.Attempt})
	if err != nil {
		return err
	}
	if over {
		return r.refuse(ctx, w, authz.Answer{}, reason+" before it had a worker")
	}
	answer := r.cfg.Decider.Decide(ctx, authz.Question{
		Principal: r.service(w.Tenant), Action: "Worker::create", Resource: r.resource(w), TraceParent: w.Trace, Correlation: w.Correlation,
	})
	if !answer.Permit {
		return r.refuse(ctx, w, answer, "not permitted: "+answer.Reason)
	}
	ttl := max(lease, r.cfg.Outlive)
	if a.Attempt == 0 { // asked for by POST /schedule: nobody runs steps on it by itself
		ttl = lone
	}
	defer r.making.Delete(w.ID)
	spanned, end := observe.CreateWorker(ctx, w.Tenant, w.Job, w.Provider, w.runtime())
	err = r.make(spanned, w, ttl)
	end(err)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		// Scheduling counts workers; one that has not quite ended is in the way.
		if errors.Is(err, provider.ErrCapacity) && r.cfg.Now().Sub(e.Time) < crowdedTime {
			return fmt.Errorf("%w: %w", bus.ErrLater, err)
		}
		return r.refuse(ctx, w, answer, err.Error())
	}
	err = r.db.Write(ctx, func(tx *sqldb.Tx) error {
		now := r.cfg.Now().UTC()
		if err := r.save(tx, w, now.Add(staleAfter)); err != nil {
			return err
		}
		return tx.Emit(answer.Event, w.ready(now))
	})
	if err != nil {
		return err
	}
	if w.Job != "" {
		r.made.Store(attemptKey{w.Tenant, w.Job, w.Attempt}, &made{worker: w})
	}
	return r.born(ctx, w)
}

// made is a worker that this process made, as it was then.
type made struct {
	worker *worker
	heard  atomic.Bool // its job has started: others know of it
}

// started takes note that the others know of an attempt's worker: that it is there
// need not be said again.
func (r *Room) started(_ context.Context, e event.Event, d event.JobStart) error {
	if m, here := r.made.Load(attemptKey{e.Tenant, d.Job, d.Attempt}); here {
		m.(*made).heard.Store(true)
	}
	return nil
}

// heard says whether the others are known to know of w.
func (r *Room) heard(w *worker) bool {
	m, here := r.made.Load(attemptKey{w.Tenant, w.Job, w.Attempt})
	return here && m.(*made).heard.Load()
}

// attemptKey finds the worker that this process made for an attempt.
type attemptKey struct {
	tenant  ident.Tenant
	job     ident.Job
	attempt int
}

// workerOf returns the worker of an attempt, as it was when it was made here or as
// its row is.
func (r *Room) workerOf(ctx context.Context, t ident.Tenant, job ident.Job, attempt int) (*worker, error) {
	if w, here := r.made.LoadAndDelete(attemptKey{t, job, attempt}); here {
		return w.(*made).worker, nil
	}
	// The tenant is compared in a way that keeps its key from being used: it would
	// find all workers of the tenant.
	return decode(r.db.QueryRow(ctx, `SELECT body FROM worker WHERE job = $2 AND job <> '' AND attempt = $3 AND tenant || '' = $1`,
		string(t), string(job), attempt))
}

// roundOf returns the mark of an event that is said again; none of one that is not.
func roundOf(e event.Event) string {
	if i := strings.LastIndex(string(e.ID), ".r"); i >= 0 {
		return string(e.ID[i:])
	}
	return ""
}

// repeat says again how a worker stands, to a room that asks again: it seems not to
// have heard.
func (r *Room) repeat(ctx context.Context, round string, w *worker) error {
	var fact event.Event
	switch {
	case round != "" && w.over():
		fact = w.endFact()
	case round != "" && w.State == Running:
		w.Round = 0
		fact = w.ready(r.cfg.Now().UTC())
	default:
		return nil
	}
	fact.ID += ident.Event(round)
	return r.db.Write(ctx, func(tx *sqldb.Tx) error { return tx.Emit(fact) })
}

// service is the room's own principal, at work for a tenant.
func (r *Room) service(t ident.Tenant) authz.Principal {
	p := r.cfg.Principal
	p.Tenant = t
	return p
}

func (r *Room) resource(w *worker) authz.Resource {
	return authz.Resource{Type: "Worker", ID: string(w.ID), Tenant: w.Tenant, Attrs: map[string]any{
		"provider_id": w.Provider, "namespace": "", "provider_authorized": w.Provider == r.cfg.Provider.Kind(),
	}}
}

// make has the provider make w, and tries again while it has no capacity.
func (r *Room) make(ctx context.Context, w *worker, ttl time.Duration) error {
	for try := 1; ; try++ {
		err := r.once(ctx, w, ttl)
		if err == nil || errors.Is(err, provider.ErrSpec) || try == createTry || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(jitter(50 * time.Millisecond << try)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *Room) once(ctx context.Context, w *worker, ttl time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, createTime)
	defer cancel()
	r.making.Store(w.ID, "")
	made, err := r.cfg.Provider.Create(ctx, provider.Request{Worker: w.ID, Tenant: w.Tenant, Job: w.Job, Attempt: w.Attempt, Runtime: w.Runtime})
	if err != nil {
		return err
	}
	cert, err := r.cfg.Authority.Issue(ctx, w.Identity, certTTL)
	if err == nil {
		err = r.cfg.Provider.ConfigureSecurity(ctx, w.ID, provider.Security{Certificate: cert, Roots: r.roots, Client: r.cfg.Client, Lease: ttl, Alone: r.cfg.Outlive})
	}
	if err != nil {
		_, _ = r.cfg.Provider.Terminate(context.WithoutCancel(ctx), w.ID, 0) // best effort: the error is the one to tell
		return err
	}
	w.State, w.Address, w.Handle = Running, made.Address, made.Handle
	return nil
}

// refuse answers an assignment that gets no worker.
func (r *Room) refuse(ctx context.Context, w *worker, answer authz.Answer, reason string) error {
	return r.db.Write(ctx, func(tx *sqldb.Tx) error {
		now := r.cfg.Now().UTC()
		fact := w.fail(now, reason)
		if err := r.save(tx, w, now); err != nil {
			return err
		}
		return tx.Emit(answer.Event, fact)
	})
}

// jobOver ends the worker of an attempt that is over. When nothing runs in it any
// more, that is done at once; otherwise the wish is saved first.
func (r *Room) jobOver(ctx context.Context, t ident.Tenant, job ident.Job, attempt int, reason string, quiet bool) error {
	w, err := r.workerOf(ctx, t, job, attempt)
	if errors.Is(err, errAbsent) {
		return r.bury(ctx, t, job, attempt, reason)
	}
	if err != nil || w.State != Running {
		return err
	}
	if quiet { // its steps have ended: what is left was not to stay
		return r.finish(ctx, w, 0)
	}
	err = r.db.Write(ctx, func(tx *sqldb.Tx) error {
		w, err := r.load(tx, w.Tenant, w.ID)
		if err != nil || w.State != Running {
			return err
		}
		w.State, w.Reason = Terminating, reason
		return r.save(tx, w, r.cfg.Now())
	})
	if err == nil {
		r.terminate(w.Tenant, w.ID, grace)
	}
	return err
}

// bury remembers that an attempt is over that never had a worker.
func (r *Room) bury(ctx context.Context, t ident.Tenant, job ident.Job, attempt int, reason string) error {
	at := r.cfg.Now()
	err := r.db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(`INSERT INTO tombstone (tenant, job, attempt, reason, at_ms) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
			string(t), string(job), attempt, reason, at.UnixMilli())
		return err
	})
	if err == nil {
		r.graves.add(attemptKey{t, job, attempt}, grave{reason, at})
	}
	return err
}

// terminate ends a worker in the background, until that is done.
func (r *Room) terminate(t ident.Tenant, id ident.Worker, grace time.Duration) {
	r.wg.Go(func() {
		select {
		case r.ending <- struct{}{}:
			defer func() { <-r.ending }()
		case <-r.ctx.Done():
			return
		}
		for pause := 100 * time.Millisecond; r.ctx.Err() == nil; pause = min(2*pause, 10*time.Second) {
			w, err := r.read(r.ctx, t, id)
			if err == nil {
				err = r.finish(r.ctx, w, grace)
			}
			if err == nil || errors.Is(err, errAbsent) {
				return
			}
			if r.ctx.Err() == nil {
				r.cfg.Log.Error("a worker cannot be ended", "worker_id", id, "error", err)
			}
			select {
			case <-time.After(jitter(pause)):
			case <-r.ctx.Done():
			}
		}
	})
}

// finish ends a worker and saves that it ended.
func (r *Room) finish(ctx context.Context, w *worker, grace time.Duration) error {
	code, err := r.cfg.Provider.Terminate(ctx, w.ID, grace)
	if err != nil && !errors.Is(err, provider.ErrGone) {
		return err
	}
	return r.ended(ctx, w, code)
}

// ended saves that a worker ended.
func (r *Room) ended(ctx context.Context, w *worker, code int) error {
	return r.db.Write(ctx, func(tx *sqldb.Tx) error {
		w, err := r.load(tx, w.Tenant, w.ID)
		if err != nil || w.over() {
			return err
		}
		now := r.cfg.Now().UTC()
		fact := w.end(now, code)
		if err := r.save(tx, w, now); err != nil {
			return err
		}
		return tx.Emit(fact)
	})
}
