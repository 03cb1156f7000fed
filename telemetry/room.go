package telemetry

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/observe"
	"fragua.dev/fragua/internal/sqldb"
)

//go:embed schema/*.sql
var files embed.FS

// Config is what a Room is made of.
type Config struct {
	Dir     string // holds telemetry.db
	Now     func() time.Time
	IDs     ident.Source
	Log     *slog.Logger
	Decider authz.Decider
	Observe *observe.Observe // whose spans and numbers are kept; none if nil

	MaxSpans int           // kept; 200 000 if 0
	KeepFor  time.Duration // of a span; 24 hours if 0
	Sample   time.Duration // between samples of the numbers; 10 seconds if 0
	Emit     time.Duration // between MetricEmitted of the main ones; 30 seconds if 0
}

// house is the tenant that what belongs to nobody is told to.
const house = ident.Tenant("default")

const (
	writeTime = 30 * time.Second // deadline of a write in the background
	sweepTime = time.Minute      // between looks for what is too old
)

// Room is the telemetry context.
type Room struct {
	cfg  Config
	db   *sqldb.DB
	gate httpapi.Gate
	live *live
	ring *ring
	cap  limiter

	mu    sync.Mutex // of kept
	kept  int        // spans in the database
	ended sync.Once
}

// Open opens the room's database, and takes over the spans of cfg.Observe.
func Open(ctx context.Context, cfg Config) (*Room, error) {
	if cfg.MaxSpans == 0 {
		cfg.MaxSpans = 200_000
	}
	if cfg.KeepFor == 0 {
		cfg.KeepFor = 24 * time.Hour
	}
	if cfg.Sample == 0 {
		cfg.Sample = 10 * time.Second
	}
	if cfg.Emit == 0 {
		cfg.Emit = 30 * time.Second
	}
	schema, err := fs.Sub(files, "schema")
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	db, err := sqldb.Open(ctx, filepath.Join(cfg.Dir, "telemetry.db"), schema)
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	m := cfg.Observe.Metrics()
	r := &Room{cfg: cfg, db: db, gate: httpapi.Gate{Decider: cfg.Decider, DB: db}, live: newLive(m), ring: newRing()}
	r.cap = limiter{now: cfg.Now, left: alertBurst}
	if err := r.load(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("telemetry: %w", err), db.Close())
	}
	cfg.Observe.SetSink(r.Keep)
	return r, nil
}

func (r *Room) load(ctx context.Context) error {
	if err := r.db.QueryRow(ctx, `SELECT COALESCE(SUM(n), 0) FROM chunk`).Scan(&r.kept); err != nil {
		return err
	}
	return r.live.load(ctx, r.db)
}

// Name returns the room's name.
func (r *Room) Name() string { return "telemetry" }

// DB returns the room's database.
func (r *Room) DB() *sqldb.DB { return r.db }

// Run samples the numbers, and tells the main ones, until ctx ends.
func (r *Room) Run(ctx context.Context) error {
	sample := time.NewTicker(r.cfg.Sample)
	emit, sweep := time.NewTicker(r.cfg.Emit), time.NewTicker(sweepTime)
	defer sample.Stop()
	defer emit.Stop()
	defer sweep.Stop()
	for {
		var err error
		select {
		case <-sample.C:
			err = r.sample()
		case <-emit.C:
			err = r.emit(ctx)
		case <-sweep.C:
			r.live.sweep(r.cfg.Now())
			err = errors.Join(r.live.save(ctx, r.db), r.shrink(ctx))
		case <-ctx.Done():
			return nil
		}
		if err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("telemetry falls behind", "error", err)
		}
	}
}

// Close keeps the spans that have ended, and closes the database.
func (r *Room) Close() error {
	var errs []error
	r.ended.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		errs = append(errs, r.cfg.Observe.Flush(ctx))
		r.cfg.Observe.SetSink(nil)
		errs = append(errs, r.live.save(ctx, r.db))
	})
	return errors.Join(append(errs, r.db.Close())...)
}
