package orchestration

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/presence"
	"fragua.dev/fragua/internal/sqldb"
)

const (
	staleAfter     = 30 * time.Second // without news, the last fact of a live job is said again
	overdue        = 2 * time.Minute  // past its deadline, a job is failed even if nobody says so
	maxBackoff     = time.Hour
	defaultMaxLive = 100_000
)

// Config is what the room is made of.
type Config struct {
	Dir     string
	Now     func() time.Time
	IDs     ident.Source
	Log     *slog.Logger
	Decider authz.Decider
	MaxLive int // jobs that have not ended; more are refused; 0 is 100,000
}

// Room is the orchestration room.
type Room struct {
	cfg   Config
	db    *sqldb.DB
	gate  httpapi.Gate
	live  atomic.Int64  // jobs that have not ended
	soon  chan struct{} // something is due earlier than the reconciler thinks
	known known         // the writer's alone
	leave leaving       // who waits for workers to be gone
	alive *presence.Presence
}

// Open opens the room on its database.
func Open(ctx context.Context, cfg Config) (*Room, error) {
	if cfg.MaxLive == 0 {
		cfg.MaxLive = defaultMaxLive
	}
	db, err := sqldb.Open(ctx, filepath.Join(cfg.Dir, "orchestration.db"), schema())
	if err != nil {
		return nil, err
	}
	r := &Room{cfg: cfg, db: db, gate: httpapi.Gate{Decider: cfg.Decider, DB: db}, soon: make(chan struct{}, 1), known: known{jobs: map[jobKey]*job{}}}
	if err := r.count(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if r.alive, err = presence.Open(filepath.Join(cfg.Dir, "orchestration.alive"), cfg.Now); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return r, nil
}

// Name returns orchestration.
func (r *Room) Name() string { return "orchestration" }

// DB returns the room's database.
func (r *Room) DB() *sqldb.DB { return r.db }

// Close closes the database.
func (r *Room) Close() error {
	r.alive.Close()
	return r.db.Close()
}

func (r *Room) count(ctx context.Context) error {
	var n int64
	if err := r.db.QueryRow(ctx, `SELECT COUNT(*) FROM job WHERE live = 1`).Scan(&n); err != nil {
		return err
	}
	r.live.Store(n)
	return nil
}

// backoff returns how long to wait after an attempt: doubled each time, with a
// fifth of jitter.
func backoff(baseMS int64) func(attempt int) time.Duration {
	return func(attempt int) time.Duration {
		d := time.Duration(baseMS) * time.Millisecond
		for range min(attempt-1, 30) {
			d = min(2*d, maxBackoff)
		}
		return d + rand.N(d/5+1)
	}
}

// Subscriptions returns what the room hears.
func (r *Room) Subscriptions() []bus.Subscription {
	return []bus.Subscription{
		bus.On(event.AssignmentCreated, r.assigned),
		bus.On(event.WorkerCreated, r.workerReady),
		bus.On(event.WorkerTerminated, func(ctx context.Context, e event.Event, d event.WorkerEnd) error {
			return r.workerGone(ctx, e, d.Job, d.Attempt, "its worker was ended by request")
		}),
		bus.On(event.WorkerFailed, func(ctx context.Context, e event.Event, d event.WorkerLoss) error {
			return r.workerGone(ctx, e, d.Job, d.Attempt, d.Reason)
		}),
		bus.On(event.StepStarted, r.stepStarted),
		bus.On(event.StepCompleted, r.stepCompleted),
		bus.On(event.StepFailed, r.stepFailed),
	}
}

// errNothing says that a fact changes nothing.
var errNothing = errors.New("nothing to change")

// change loads a job, lets fn move it, and saves it with what happened. A job
// that is not there, or that fn does not change, is left alone.
func (r *Room) change(ctx context.Context, t ident.Tenant, id ident.Job, fn func(j *job, now time.Time) ([]event.Event, error)) error {
	if id == "" { // of a worker that has none
		return nil
	}
	var (
		ended, begun int
		due          bool // earlier than the reconciler thinks, it may be
	)
	err := r.db.Write(ctx, func(tx *sqldb.Tx) error {
		ended, begun, due = 0, 0, false
		now := r.cfg.Now().UTC()
		j, err := r.known.load(tx, t, id)
		if errors.Is(err, errAbsent) {
			return errNothing
		}
		if err != nil {
			return err
		}
		was, before := j.over(), j.State
		facts, err := fn(j, now)
		if err != nil {
			return err
		}
		due = !j.RetryAt.IsZero()
		if err := r.known.save(tx, j, now); err != nil {
			return err
		}
		if err := tx.Emit(facts...); err != nil {
			return err
		}
		if before == Pending && j.Run != "" && !j.over() {
			return runBegins(tx, t, j.Run)
		}
		if was || !j.over() {
			return nil
		}
		ended++
		if j.Run == "" {
			return nil
		}
		e, b, err := r.advance(tx, t, j.Run, now)
		ended, begun = ended+e, begun+b
		return err
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	if err != nil {
		return err
	}
	r.live.Add(int64(begun - ended))
	if due { // not before the commit: the reconciler would read what was due before
		r.wake()
	}
	return nil
}

// fits says how the attempt that a fact is about stands to the job's: a late one
// is dropped, an early one comes again.
func (j *job) fits(attempt int) error {
	switch {
	case attempt < j.Attempts:
		return errNothing
	case attempt > j.Attempts:
		return bus.ErrLater
	}
	return nil
}

func (r *Room) assigned(ctx context.Context, e event.Event, d event.Assignment) error {
	return r.change(ctx, e.Tenant, d.Job, func(j *job, now time.Time) ([]event.Event, error) {
		if err := j.fits(d.Attempt); err != nil {
			return nil, err
		}
		if j.State != Pending {
			return nil, errNothing
		}
		return nil, j.schedule(d, now)
	})
}

func (r *Room) workerReady(ctx context.Context, e event.Event, d event.WorkerMade) error {
	return r.change(ctx, e.Tenant, d.Job, func(j *job, now time.Time) ([]event.Event, error) {
		if d.Attempt < j.Attempts || j.over() && d.Attempt == j.Attempts {
			return r.remind(j, d, now)
		}
		if err := j.fits(d.Attempt); err != nil {
			return nil, err
		}
		switch j.State {
		case Pending:
			return nil, bus.ErrLater
		case Scheduled:
			return j.start(d, now)
		}
		return nil, errNothing
	})
}

// remind answers a worker that says again that it is there, although its attempt
// is over: the word that ended it was lost on the way.
func (r *Room) remind(j *job, d event.WorkerMade, now time.Time) ([]event.Event, error) {
	if now.Sub(j.Created) < staleAfter {
		return nil, errNothing
	}
	j.Round++
	if d.Attempt == j.Attempts {
		return []event.Event{j.endFact(now)}, nil
	}
	a := j.about(j.twist(), now)
	a.Twist += ".w" + strconv.Itoa(d.Attempt)
	return []event.Event{event.JobRetrying.Event(a, event.JobRetry{Job: j.ID, Attempt: d.Attempt, Reason: "the attempt is over", Run: j.Run})}, nil
}

func (r *Room) workerGone(ctx context.Context, e event.Event, id ident.Job, attempt int, reason string) error {
	r.leave.gone(e.Tenant, id)
	return r.change(ctx, e.Tenant, id, func(j *job, now time.Time) ([]event.Event, error) {
		switch {
		case j.over():
			return nil, errNothing
		case j.Occupied == attempt:
			j.Occupied = 0
		case attempt != j.Attempts:
			return nil, errNothing
		}
		if j.State == Pending && attempt < j.Attempts && !j.RetryAt.IsZero() {
			if j.RetryAt.After(now) {
				return nil, nil
			}
			return []event.Event{j.request(now)}, nil
		}
		if attempt < j.Attempts {
			return nil, nil
		}
		if j.State == Pending {
			return nil, bus.ErrLater // its assignment is not heard of yet
		}
		return j.lose(now, reason, backoff(j.Spec.RetryBackoffMS))
	})
}

func (r *Room) stepStarted(ctx context.Context, e event.Event, d event.StepBegin) error {
	if d.Over { // its end says the same, and more
		return nil
	}
	return r.change(ctx, e.Tenant, d.Job, func(j *job, now time.Time) ([]event.Event, error) {
		if err := j.fits(d.Attempt); err != nil {
			return nil, err
		}
		if !j.stepBegan(d) {
			return nil, errNothing
		}
		return nil, nil
	})
}

func (r *Room) stepCompleted(ctx context.Context, e event.Event, d event.StepEnd) error {
	return r.change(ctx, e.Tenant, d.Job, func(j *job, now time.Time) ([]event.Event, error) {
		if err := j.fits(d.Attempt); err != nil {
			return nil, err
		}
		if !j.stepEnded(d.Index, d.Try, d.Exec, stepCompleted, d.Result, d.DurationMS, d.At, "", "") {
			return nil, errNothing
		}
		if j.State != Running || !j.completed() {
			return nil, nil
		}
		return j.succeed(now, d.Result)
	})
}

func (r *Room) stepFailed(ctx context.Context, e event.Event, d event.StepFault) error {
	return r.change(ctx, e.Tenant, d.Job, func(j *job, now time.Time) ([]event.Event, error) {
		if err := j.fits(d.Attempt); err != nil {
			return nil, err
		}
		if !j.stepEnded(d.Index, d.Try, d.Exec, stepFailed, d.Result, d.DurationMS, d.At, d.Code, d.Message) {
			return nil, errNothing
		}
		if j.State != Running || !d.Last {
			return nil, nil
		}
		wait := backoff(j.Spec.RetryBackoffMS)
		if d.Code == "lost" {
			return j.lose(now, d.Message, wait)
		}
		return j.fail(now, Failure{d.Code, d.Message, d.Retryable}, d.Result, wait)
	})
}

// wake has the reconciler look when the next thing is due.
func (r *Room) wake() {
	select {
	case r.soon <- struct{}{}:
	default:
	}
}
