package execution

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/artifacts"
	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/identity"
	"fragua.dev/fragua/execution/agentclient"
	"fragua.dev/fragua/execution/logstore"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/presence"
	"fragua.dev/fragua/internal/sqldb"
)

//go:embed schema/*.sql
var schemaFiles embed.FS

const (
	ownCert    = 30 * 24 * time.Hour
	renewEvery = 10 * time.Second      // signs of life to a worker, a third of its shortest lease
	lostAfter  = 45 * time.Second      // without an answer; a worker that is taken for lost is ended by who made it
	coalesce   = 12 * time.Millisecond // a step that ends within it is saved once
	recordTime = 40 * time.Millisecond // an attempt is on record by then, whatever its first step does
)

// An Agent is one worker's API; see package agentapi.
type Agent interface {
	Exec(ctx context.Context, r agentapi.ExecRequest) (agentapi.Exec, error)
	Complete(ctx context.Context, r agentapi.CompleteRequest) (agentapi.Exec, error)
	Cancel(ctx context.Context, r agentapi.CancelRequest) (agentapi.Exec, error)
	Logs(ctx context.Context, exec ident.Exec, from int64) (io.ReadCloser, error)
	Workspace(ctx context.Context, r io.Reader) error
	File(ctx context.Context, path string) (content io.ReadCloser, kind string, err error)
	Lease(ctx context.Context) (agentapi.LeaseReply, error)
	Close()
}

// Config is what the room is made of.
type Config struct {
	Dir       string
	Now       func() time.Time
	IDs       ident.Source
	Log       *slog.Logger
	Decider   authz.Decider
	Principal authz.Principal // the room's own
	Authority identity.Authority
	Keeper    artifacts.Keeper
	Vault     artifacts.Vault
	// Dial returns the API of a worker; over mutual TLS unless given.
	Dial func(address string, t ident.Tenant, w ident.Worker) Agent
}

// Room is the execution room.
type Room struct {
	cfg    Config
	db     *sqldb.DB
	gate   httpapi.Gate
	logs   *logstore.Store
	dialer *agentclient.Dialer // nil where Config.Dial is given
	ctx    context.Context
	stop   context.CancelFunc
	wg     sync.WaitGroup
	alive  *presence.Presence

	resuming sync.Mutex
	up       bool // the executions of POST /exec that an earlier process left are taken up

	mu       sync.Mutex
	closed   bool
	left     []*attempt  // by an earlier process, which was working on them; nil once they are taken up
	resumed  atomic.Bool // what POST /exec had begun before is taken up
	attempts map[key]*work
	execs    map[execKey]*running
}

type key struct {
	tenant  ident.Tenant
	job     ident.Job
	attempt int
}

type execKey struct {
	tenant ident.Tenant
	exec   ident.Exec
}

// Open opens the room on its database.
func Open(ctx context.Context, cfg Config) (*Room, error) {
	merged, err := withLogs(schemaFiles)
	if err != nil {
		return nil, err
	}
	db, err := sqldb.Open(ctx, filepath.Join(cfg.Dir, "execution.db"), merged)
	if err != nil {
		return nil, err
	}
	r := &Room{
		cfg: cfg, db: db, gate: httpapi.Gate{Decider: cfg.Decider, DB: db},
		attempts: map[key]*work{}, execs: map[execKey]*running{},
	}
	r.ctx, r.stop = context.WithCancel(context.Background())
	if r.logs, err = logstore.Open(logstore.Config{DB: db, Dir: filepath.Join(cfg.Dir, "logs"), Now: cfg.Now}); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if r.alive, err = presence.Open(filepath.Join(cfg.Dir, "execution.alive"), cfg.Now); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if r.left, err = r.leftAttempts(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if cfg.Dial == nil {
		if r.dialer, err = dialer(ctx, cfg.Authority); err != nil {
			return nil, errors.Join(err, r.Close())
		}
		r.cfg.Dial = func(address string, t ident.Tenant, w ident.Worker) Agent { return r.dialer.Dial(address, t, w) }
	}
	return r, nil
}

// dialer speaks to workers with a certificate of the execution room.
func dialer(ctx context.Context, ca identity.Authority) (*agentclient.Dialer, error) {
	own, err := ca.Issue(ctx, identity.Room("execution"), ownCert)
	if err != nil {
		return nil, fmt.Errorf("execution: %w", err)
	}
	roots, _ := ca.Roots()
	return agentclient.NewDialer(own, roots), nil
}

// Name returns execution.
func (r *Room) Name() string { return "execution" }

// DB returns the room's database.
func (r *Room) DB() *sqldb.DB { return r.db }

// Close lets go of what runs, which goes on without this process, and closes the
// database.
func (r *Room) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.stop()
	r.wg.Wait()
	if r.dialer != nil {
		r.dialer.Close()
	}
	var err error
	if r.logs != nil {
		err = r.logs.Close()
	}
	if r.alive != nil {
		r.alive.Close()
	}
	return errors.Join(err, r.db.Close())
}

// Subscriptions returns what the room hears.
func (r *Room) Subscriptions() []bus.Subscription {
	return []bus.Subscription{
		bus.On(event.JobStarted, r.started),
		bus.On(event.WorkerCreated, r.lone),
		bus.On(event.JobCancelled, func(_ context.Context, e event.Event, d event.JobStop) error {
			return r.call(e.Tenant, d.Job, d.Attempt, agentapi.CodeCancel, d.Reason)
		}),
		bus.On(event.JobFailed, func(_ context.Context, e event.Event, d event.JobFault) error {
			return r.call(e.Tenant, d.Job, d.Attempt, agentapi.CodeCancel, d.Message)
		}),
		bus.On(event.JobTerminated, func(_ context.Context, e event.Event, d event.JobFault) error {
			return r.call(e.Tenant, d.Job, d.Attempt, codeLost, d.Message)
		}),
		bus.On(event.WorkerFailed, func(_ context.Context, e event.Event, d event.WorkerLoss) error {
			return errors.Join(r.call(e.Tenant, d.Job, d.Attempt, codeLost, d.Reason), r.forget(e.Tenant, d.Worker, d.Job, d.Reason))
		}),
		bus.On(event.WorkerTerminated, func(_ context.Context, e event.Event, d event.WorkerEnd) error {
			return errors.Join(r.call(e.Tenant, d.Job, d.Attempt, codeLost, workerEnded), r.forget(e.Tenant, d.Worker, d.Job, workerEnded))
		}),
	}
}

// call ends the attempt's work here: with code, for the step that is running. One that
// an earlier process left is taken up for that if its worker is lost; one that lives
// still has something to say, and will be ended by others.
func (r *Room) call(t ident.Tenant, job ident.Job, n int, code, reason string) error {
	k := key{t, job, n}
	r.mu.Lock()
	w := r.attempts[k]
	if i := slices.IndexFunc(r.left, func(a *attempt) bool { return a.key() == k }); w == nil && i >= 0 && code == codeLost {
		w = r.beginLocked(r.left[i])
	}
	r.mu.Unlock()
	if w != nil {
		w.end(code, reason)
	}
	return nil
}

// started begins an attempt. It returns once the attempt is on record, so that it
// goes on after a restart.
func (r *Room) started(ctx context.Context, e event.Event, d event.JobStart) error {
	if len(d.Steps) != len(d.Spec.Steps) || len(d.Steps) == 0 {
		return fmt.Errorf("job %s: %d step ids for %d steps", d.Job, len(d.Steps), len(d.Spec.Steps))
	}
	k := key{e.Tenant, d.Job, d.Attempt}
	r.mu.Lock()
	w := r.attempts[k]
	r.mu.Unlock()
	if w == nil {
		old, err := (*attempt)(nil), sqldb.ErrNoRows
		if _, again := cutRound(string(e.ID)); again || !bus.Fresh(ctx) {
			old, err = r.loadAttempt(ctx, k)
		}
		switch {
		case err == nil && old.Done:
			return r.repeat(ctx, e, old)
		case err == nil:
			w = r.begin(old)
		case errors.Is(err, sqldb.ErrNoRows):
			a := newAttempt(e, d)
			if e.Time.Before(r.alive.Since) {
				a.Away = min(r.alive.Away, r.alive.Since.Sub(e.Time))
			}
			w = r.begin(a)
		default:
			return err
		}
	}
	return w.onRecord(ctx)
}

// begin starts to work on an attempt, unless that is being done.
func (r *Room) begin(a *attempt) *work {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.beginLocked(a)
}

// beginLocked is begin for who holds mu. What was left of the attempt is taken up by
// that, and must not be once more: it ends only once.
func (r *Room) beginLocked(a *attempt) *work {
	k := a.key()
	r.left = slices.DeleteFunc(r.left, func(l *attempt) bool { return l.key() == k })
	if w := r.attempts[k]; w != nil {
		return w
	}
	w := newWork(r, a)
	if r.closed {
		return w
	}
	r.attempts[k] = w
	r.wg.Go(func() {
		w.run()
		r.mu.Lock()
		delete(r.attempts, k)
		r.mu.Unlock()
	})
	return w
}

// repeat says again how the steps of an attempt ended, to a room that seems not
// to have heard.
func (r *Room) repeat(ctx context.Context, e event.Event, a *attempt) error {
	round, again := cutRound(string(e.ID))
	if !again {
		return nil
	}
	rows, err := r.db.Query(ctx, `SELECT body FROM exec WHERE job = $2 AND attempt = $3 AND tenant || '' = $1`, string(a.Tenant), string(a.Start.Job), a.Start.Attempt)
	if err != nil {
		return err
	}
	defer rows.Close()
	var facts []event.Event
	for rows.Next() {
		var (
			body []byte
			x    execution
		)
		if err := rows.Scan(&body); err != nil {
			return err
		}
		if err := json.Unmarshal(body, &x); err != nil {
			return err
		}
		if x.Fact.ID != "" {
			x.Fact.ID += ident.Event(round)
			facts = append(facts, x.Fact)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	rows.Close()
	return r.db.Write(ctx, func(tx *sqldb.Tx) error { return tx.Emit(facts...) })
}

func (r *Room) loadAttempt(ctx context.Context, k key) (*attempt, error) {
	var body []byte
	err := r.db.QueryRow(ctx, `SELECT body FROM attempt WHERE tenant = $1 AND job = $2 AND attempt = $3`, string(k.tenant), string(k.job), k.attempt).Scan(&body)
	if err != nil {
		return nil, err
	}
	a := &attempt{}
	return a, json.Unmarshal(body, a)
}

func saveAttempt(tx *sqldb.Tx, a *attempt) error {
	kept := *a
	live := 1
	if a.Done {
		live = 0
		kept.Start.Spec.Env, kept.Start.Spec.Steps = nil, nil // not needed any more
	}
	body, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO attempt (tenant, job, attempt, live, body) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (tenant, job, attempt) DO UPDATE SET live = excluded.live, body = excluded.body`,
		string(a.Tenant), string(a.Start.Job), a.Start.Attempt, live, body)
	return err
}

// Run takes up what an earlier process was doing, and waits for ctx to end.
func (r *Room) Run(ctx context.Context) error {
	r.mu.Lock()
	for len(r.left) > 0 {
		r.beginLocked(r.left[0])
	}
	r.mu.Unlock()
	if err := r.resumeExecs(ctx); err != nil {
		return err
	}
	r.resumed.Store(true)
	<-ctx.Done()
	return nil
}

// leftAttempts returns the attempts that an earlier process was working on. They get the
// time in which nobody was.
func (r *Room) leftAttempts(ctx context.Context) ([]*attempt, error) {
	left, err := liveAttempts(ctx, r.db)
	if err != nil || len(left) == 0 {
		return left, err
	}
	for _, a := range left {
		a.Away += r.alive.Away
	}
	return left, r.db.Write(ctx, func(tx *sqldb.Tx) error {
		for _, a := range left {
			if err := saveAttempt(tx, a); err != nil {
				return err
			}
		}
		return nil
	})
}

// liveAttempts returns the attempts that have not ended.
func liveAttempts(ctx context.Context, db *sqldb.DB) (out []*attempt, err error) {
	rows, err := db.Query(ctx, `SELECT body FROM attempt WHERE live = 1`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			return nil, err
		}
		a := &attempt{}
		if err := json.Unmarshal(body, a); err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, rows.Err()
}

// withLogs adds the log store's tables to the room's own.
func withLogs(own fs.FS) (fs.FS, error) {
	sub, err := fs.Sub(own, "schema")
	if err != nil {
		return nil, err
	}
	return overlay{sub, logstore.Schema}, nil
}
