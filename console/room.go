package console

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/sqldb"
)

//go:embed schema/*.sql
var files embed.FS

// A Tail yields the stored events whose subject matches one of subjects (none:
// all), each with the place just after it. It goes on after the place after; an
// empty one means what comes from now on, 0 all that is stored. It ends when ctx
// does, when yield fails, or, unless follow, after what is stored.
type Tail interface {
	Tail(ctx context.Context, subjects []string, after string, follow bool, yield func(id string, e event.Event) error) error
}

// Config is what a Room is made of.
type Config struct {
	Dir     string // holds console.db
	Now     func() time.Time
	IDs     ident.Source
	Log     *slog.Logger
	Decider authz.Decider
	Tail    Tail // where events are read from; nil: there are none

	MaxJobs    int           // that are remembered, but for those that live; 200 000 if 0
	KeepFor    time.Duration // of a job that has ended; 30 days if 0
	MaxStreams int           // event streams at the same time; 256 if 0
	Heartbeat  time.Duration // between signs of life on a stream; 15 seconds if 0
}

const shrinkTime = time.Hour // between looks for what is too old

// Room is the console's backend.
type Room struct {
	cfg     Config
	db      *sqldb.DB
	gate    httpapi.Gate
	desk    sync.Mutex     // whoever has it writes jobs
	cache   map[jobKey]job // jobs that live
	streams streams
}

// Open opens the room's database.
func Open(ctx context.Context, cfg Config) (*Room, error) {
	if cfg.MaxJobs == 0 {
		cfg.MaxJobs = 200_000
	}
	if cfg.KeepFor == 0 {
		cfg.KeepFor = 30 * 24 * time.Hour
	}
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = 256
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = 15 * time.Second
	}
	schema, err := fs.Sub(files, "schema")
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	db, err := sqldb.Open(ctx, filepath.Join(cfg.Dir, "console.db"), schema)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	r := &Room{
		cfg: cfg, db: db, gate: httpapi.Gate{Decider: cfg.Decider, DB: db},
		cache: map[jobKey]job{}, streams: streams{of: map[ident.Tenant]int{}},
	}
	return r, nil
}

// Name returns the room's name.
func (r *Room) Name() string { return "console" }

// DB returns the room's database.
func (r *Room) DB() *sqldb.DB { return r.db }

// Run lets go of old jobs, until ctx ends.
func (r *Room) Run(ctx context.Context) error {
	t := time.NewTicker(shrinkTime)
	defer t.Stop()
	for {
		if err := r.shrink(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("old jobs stay", "error", err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Close closes the database. What is not durable by then was not acknowledged, and
// comes again.
func (r *Room) Close() error { return r.db.Close() }
