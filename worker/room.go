package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/identity"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/sqldb"
	"fragua.dev/fragua/worker/provider"
)

const (
	lease       = 30 * time.Second   // an agent ends itself when nobody called for so long, unless Config.Outlive is longer
	lone        = 5 * time.Minute    // the lease of a worker that someone asked for by hand
	certTTL     = 8 * 24 * time.Hour // longer than the longest job
	grace       = 5 * time.Second    // between TERM and KILL
	createTime  = 20 * time.Second   // for one try at making a worker
	createTry   = 4
	crowdedTime = 45 * time.Second // an assignment waits for so long while there are too many workers
	staleAfter  = 30 * time.Second // a live worker says again that it is there
	tombstones  = time.Hour        // that they are kept
	maxEnding   = 256              // workers that are ended at the same time
	maxOwn      = 16               // workers made by hand of one tenant: no tenant takes all of provider.MaxByHand
)

// Config is what the room is made of.
type Config struct {
	Dir       string
	Now       func() time.Time
	IDs       ident.Source
	Log       *slog.Logger
	Decider   authz.Decider
	Principal authz.Principal // the room's own
	Authority identity.Authority
	Provider  provider.Provider
	Nodes     []ident.Node // whose workers this room makes
	// Outlive is for how long workers of jobs live on when nobody calls them: the execution
	// room is away, or this process has ended. Less than their lease counts for the latter
	// alone; 0 is their lease.
	Outlive time.Duration
	Client  string // the SPIFFE id that may call workers; the execution room's unless given
}

// Room is the worker room.
type Room struct {
	cfg    Config
	db     *sqldb.DB
	gate   httpapi.Gate
	roots  []byte
	nodes  map[ident.Node]bool
	ending chan struct{}
	known  known
	graves *graves
	made   sync.Map  // attemptKey → *made, for those that live and were made by this process
	making sync.Map  // ident.Worker → why it has ended already, for those whose rows do not say yet where they are
	left   []*worker // by an earlier process, which was ending them
	wg     sync.WaitGroup
	ctx    context.Context
	stop   context.CancelFunc
}

// Open opens the room on its database, and takes over the workers that an
// earlier process made.
func Open(ctx context.Context, cfg Config) (*Room, error) {
	if cfg.Client == "" {
		cfg.Client = identity.Room("execution")
	}
	db, err := sqldb.Open(ctx, filepath.Join(cfg.Dir, "worker.db"), schema())
	if err != nil {
		return nil, err
	}
	_, pem := cfg.Authority.Roots()
	r := &Room{
		cfg: cfg, db: db, gate: httpapi.Gate{Decider: cfg.Decider, DB: db}, roots: pem,
		nodes: map[ident.Node]bool{}, known: known{}, ending: make(chan struct{}, maxEnding),
	}
	r.ctx, r.stop = context.WithCancel(context.Background())
	for _, n := range cfg.Nodes {
		r.nodes[n] = true
	}
	if r.graves, err = openGraves(ctx, db); err == nil {
		err = r.adopt(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Name returns worker.
func (r *Room) Name() string { return "worker" }

// DB returns the room's database.
func (r *Room) DB() *sqldb.DB { return r.db }

// Close lets go of the workers, which live on for as long as their lease, and
// closes the database.
func (r *Room) Close() error {
	r.stop()
	r.wg.Wait()
	return errors.Join(r.cfg.Provider.Close(), r.db.Close())
}

// Subscriptions returns what the room hears.
func (r *Room) Subscriptions() []bus.Subscription {
	return []bus.Subscription{
		bus.On(event.AssignmentCreated, r.assigned),
		bus.On(event.AssignmentRevoked, func(ctx context.Context, e event.Event, d event.Rejection) error {
			if d.Attempt > 0 {
				return nil // what ended its attempt is heard, too
			}
			return r.jobOver(ctx, e.Tenant, d.Job, d.Attempt, "its assignment was taken back: "+d.Reason, false)
		}),
		bus.On(event.JobStarted, r.started),
		bus.On(event.JobCompleted, func(ctx context.Context, e event.Event, d event.JobDone) error {
			return r.jobOver(ctx, e.Tenant, d.Job, d.Attempt, "its job has ended", true)
		}),
		bus.On(event.JobFailed, func(ctx context.Context, e event.Event, d event.JobFault) error {
			return r.jobOver(ctx, e.Tenant, d.Job, d.Attempt, "its job has failed", false)
		}),
		bus.On(event.JobTerminated, func(ctx context.Context, e event.Event, d event.JobFault) error {
			return r.jobOver(ctx, e.Tenant, d.Job, d.Attempt, "its job was lost", false)
		}),
		bus.On(event.JobRetrying, func(ctx context.Context, e event.Event, d event.JobRetry) error {
			return r.jobOver(ctx, e.Tenant, d.Job, d.Attempt, "its job's next attempt follows", false)
		}),
		bus.On(event.JobCancelled, func(ctx context.Context, e event.Event, d event.JobStop) error {
			return r.jobOver(ctx, e.Tenant, d.Job, d.Attempt, "its job was cancelled", false)
		}),
	}
}

// adopt takes over what an earlier process left: workers that live go on, those
// that were being ended are ended, those that died have failed.
func (r *Room) adopt(ctx context.Context) error {
	rows, err := r.db.Query(ctx, `SELECT body FROM worker WHERE live = 1`)
	if err != nil {
		return err
	}
	defer rows.Close()
	var known []*worker
	for rows.Next() {
		w, err := decode(rows)
		if err != nil {
			return err
		}
		known = append(known, w)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	rows.Close()
	known, before := succeeded(known)
	for _, w := range before {
		if err := r.ended(ctx, w, 0); err != nil {
			return err
		}
	}
	var made []provider.Made
	for _, w := range known {
		made = append(made, w.made())
	}
	alive, err := r.cfg.Provider.Adopt(ctx, made)
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	lives := map[ident.Worker]bool{}
	for _, id := range alive {
		lives[id] = true
	}
	for _, w := range known {
		switch {
		case w.State == Terminating:
			r.left = append(r.left, w)
		case !lives[w.ID]:
			if err := r.lost(ctx, w.Tenant, w.ID, "it did not survive the restart of the server", false); err != nil {
				return err
			}
		}
	}
	return nil
}

// succeeded tells workers whose process has become another's from the rest. One
// process serves one worker after the other: of several rows that name it, the last
// is at work. Those before it have ended, and the disk was full, or the room killed,
// before that was saved; to end them now would end the last.
func succeeded(all []*worker) (last, before []*worker) {
	holds := map[string]*worker{}
	for _, w := range all {
		if l := holds[w.Handle]; l == nil || l.Created.Before(w.Created) {
			holds[w.Handle] = w
		}
	}
	for _, w := range all {
		if w.Handle == "" || holds[w.Handle] == w {
			last = append(last, w)
		} else {
			before = append(before, w)
		}
	}
	return last, before
}

// Run watches the workers until ctx ends.
func (r *Room) Run(ctx context.Context) error {
	for _, w := range r.left {
		r.terminate(w.Tenant, w.ID, 0)
	}
	t := time.NewTicker(staleAfter / 6)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-r.cfg.Provider.Events():
			if !ok {
				return nil
			}
			if err := r.died(ctx, e); err != nil {
				r.wg.Go(func() { r.insist(e, err) })
			}
		case <-t.C:
			if err := r.reconcile(ctx); err != nil && ctx.Err() == nil {
				r.cfg.Log.Error("workers cannot be reconciled", "error", err)
			}
		}
	}
}

// insist takes note of a worker's end that could not be saved, until that succeeds:
// else it would be taken to live until the next start.
func (r *Room) insist(e provider.Ended, err error) {
	for pause := 100 * time.Millisecond; err != nil; pause = min(2*pause, 10*time.Second) {
		if r.ctx.Err() == nil {
			r.cfg.Log.Error("a worker's end cannot be saved", "worker_id", e.Worker, "error", err)
		}
		select {
		case <-time.After(jitter(pause)):
		case <-r.ctx.Done():
			return
		}
		err = r.died(r.ctx, e)
	}
}

// died takes note of a worker that ended unasked.
func (r *Room) died(ctx context.Context, e provider.Ended) error {
	if r.making.CompareAndSwap(e.Worker, "", cmp.Or(e.Reason, "it ended")) {
		return nil // born takes note
	}
	var t ident.Tenant
	err := r.db.QueryRow(ctx, `SELECT tenant FROM worker WHERE live = 1 AND id = $1`, string(e.Worker)).Scan(&t)
	if errors.Is(err, sqldb.ErrNoRows) { // it is not one of ours, or has ended: nothing to note
		return nil
	}
	if err != nil {
		return err
	}
	return r.lost(ctx, t, e.Worker, e.Reason, e.Expired)
}

// born says that the row of a worker that was being made says so: an end that came
// before is noted now.
func (r *Room) born(ctx context.Context, w *worker) error {
	why, _ := r.making.LoadAndDelete(w.ID)
	if why == nil || why == "" {
		return nil
	}
	_, _ = r.cfg.Provider.Terminate(ctx, w.ID, 0) // should it be an earlier try that ended
	return r.lost(ctx, w.Tenant, w.ID, why.(string), false)
}

func (r *Room) lost(ctx context.Context, t ident.Tenant, id ident.Worker, reason string, expired bool) error {
	return r.db.Write(ctx, func(tx *sqldb.Tx) error {
		w, err := r.load(tx, t, id)
		if err != nil || w.over() {
			return err
		}
		now := r.cfg.Now().UTC()
		r.made.Delete(attemptKey{t, w.Job, w.Attempt})
		fact := w.fail(now, reason)
		if err := r.save(tx, w, now); err != nil {
			return err
		}
		facts := []event.Event{fact}
		if expired {
			facts = []event.Event{w.expired(now), fact}
		}
		return tx.Emit(facts...)
	})
}

// reconcile has workers that are long at work, and of which nobody seems to have
// heard, say again that they are there, and forgets old tombstones.
func (r *Room) reconcile(ctx context.Context) error {
	now := r.cfg.Now().UTC()
	rows, err := r.db.Query(ctx, `SELECT body FROM worker WHERE live = 1 AND due_ms <= $1 ORDER BY due_ms LIMIT 200`, now.UnixMilli())
	if err != nil {
		return err
	}
	defer rows.Close()
	var due []*worker
	for rows.Next() {
		w, err := decode(rows)
		if err != nil {
			return err
		}
		due = append(due, w)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	rows.Close()
	for _, w := range due {
		err := r.db.Write(ctx, func(tx *sqldb.Tx) error {
			w, err := r.load(tx, w.Tenant, w.ID)
			if err != nil || w.State != Running {
				return err
			}
			if r.heard(w) {
				return r.save(tx, w, now.Add(staleAfter<<5))
			}
			w.Round++
			if err := r.save(tx, w, now.Add(staleAfter<<min(w.Round, 5))); err != nil {
				return err
			}
			if w.Job == "" {
				return nil
			}
			return tx.Emit(w.ready(now))
		})
		if err != nil {
			return err
		}
	}
	r.graves.sweep(now.Add(-tombstones))
	return r.db.Write(ctx, func(tx *sqldb.Tx) error {
		var n int
		old := now.Add(-tombstones).UnixMilli()
		if err := tx.QueryRow(`SELECT COUNT(*) FROM tombstone WHERE at_ms < $1`, old).Scan(&n); err != nil || n == 0 {
			return err
		}
		_, err := tx.Exec(`DELETE FROM tombstone WHERE at_ms < $1`, old)
		return err
	})
}

func jitter(d time.Duration) time.Duration { return d + rand.N(d/2) }
