package scheduling

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/sqldb"
)

// DefaultMaxQueue is how many attempts may wait unless Config says otherwise.
const DefaultMaxQueue = 100_000

// Config is what a Room is made of.
type Config struct {
	Dir       string // holds scheduling.db
	Now       func() time.Time
	IDs       ident.Source
	Log       *slog.Logger
	Decider   authz.Decider
	Principal authz.Principal // who the room is when it asks whether it may place a job
	MaxQueue  int             // attempts of jobs that may wait, and as many asked for by POST /schedule; DefaultMaxQueue if 0
	Nodes     []NodeConfig    // all there are; one that is missing takes no new jobs
	Hold      bool            // nothing that waits is given a place

	ResayAfter  time.Duration // an assignment without a worker is said again; 1 minute if 0
	StarveAfter time.Duration // a node is kept for an attempt that waits so long; 30 seconds if 0
	KeepEnded   time.Duration // how long what has ended is remembered; 30 days if 0
}

// NodeConfig is a node as it is configured.
type NodeConfig struct {
	ID       ident.Node
	Provider string // kind of the workers it makes
	Zone     string
	Pool     string
	Labels   map[string]string
	Quota    spec.Quota // of the empty node; any number of Workers if 0
}

// Room is the scheduling context.
type Room struct {
	cfg  Config
	db   *sqldb.DB
	asks chan *request
	quit chan struct{}
	gone chan struct{} // closed when the desk is empty for good
	once sync.Once

	// What follows is the mirror of the database. The desk alone changes it, with
	// mu locked until the change is durable: readers never see what may yet fail.
	mu     sync.RWMutex
	stale  bool // the mirror may differ from the database
	snap   *Snapshot
	jobs   map[jobKey][]*place // live ones
	byID   map[ident.Assignment]*place
	nodes  map[ident.Node]*ledger // by the same ids as snap
	seq    int64
	more   bool // the last plan was cut short
	unsaid bool // some node has a capacity that has not been said
}

// A ledger is what is known of a node besides its capacity.
type ledger struct {
	places int       // that hold capacity
	said   time.Time // its capacity
	unsaid bool      // its capacity has changed since
}

// Open opens the room's database, takes note of its nodes, and takes up its
// queue where it was left. Nothing is planned before Run, or the first event.
func Open(ctx context.Context, cfg Config) (*Room, error) {
	if cfg.MaxQueue == 0 {
		cfg.MaxQueue = DefaultMaxQueue
	}
	if cfg.ResayAfter == 0 {
		cfg.ResayAfter = time.Minute
	}
	if cfg.StarveAfter == 0 {
		cfg.StarveAfter = 30 * time.Second
	}
	if cfg.KeepEnded == 0 {
		cfg.KeepEnded = 30 * 24 * time.Hour
	}
	if err := checkNodes(cfg.Nodes); err != nil {
		return nil, fmt.Errorf("scheduling: %w", err)
	}
	db, err := sqldb.Open(ctx, filepath.Join(cfg.Dir, "scheduling.db"), schema())
	if err != nil {
		return nil, fmt.Errorf("scheduling: %w", err)
	}
	r := &Room{
		cfg: cfg, db: db, stale: true,
		asks: make(chan *request, maxBatch), quit: make(chan struct{}), gone: make(chan struct{}),
	}
	if _, err := r.turn(ctx, []*request{{do: (*turn).register}}, false); err != nil {
		return nil, errors.Join(fmt.Errorf("scheduling: nodes: %w", err), db.Close())
	}
	go r.work()
	return r, nil
}

func checkNodes(nodes []NodeConfig) error {
	seen := map[ident.Node]bool{}
	for _, n := range nodes {
		if err := ident.Check("node", string(n.ID)); err != nil {
			return err
		}
		if seen[n.ID] {
			return fmt.Errorf("node %s is configured twice", n.ID)
		}
		seen[n.ID] = true
		if !n.Quota.Holds(spec.Quota{}) {
			return fmt.Errorf("node %s: a quota is not negative", n.ID)
		}
	}
	return nil
}

// Name returns the room's name.
func (r *Room) Name() string { return "scheduling" }

// DB returns the room's database.
func (r *Room) DB() *sqldb.DB { return r.db }

// Close stops the desk and closes the database. What is not durable by then was
// not acknowledged, and comes again.
func (r *Room) Close() error {
	r.once.Do(func() { close(r.quit) })
	<-r.gone
	return r.db.Close()
}

// load fills the mirror from the database.
func (r *Room) load(tx *sqldb.Tx) error {
	nodes, err := storedNodes(tx)
	if err != nil {
		return err
	}
	places, err := livePlaces(tx)
	if err != nil {
		return err
	}
	r.snap, r.jobs, r.byID, r.nodes = NewSnapshot(), map[jobKey][]*place{}, map[ident.Assignment]*place{}, map[ident.Node]*ledger{}
	used := map[ident.Node]spec.Quota{}
	r.seq = 0
	for _, n := range nodes {
		r.nodes[n.ID] = &ledger{unsaid: true}
	}
	for _, p := range places {
		r.seq = max(r.seq, p.Seq)
		r.remember(p)
		if p.node == "" {
			r.snap.Add(&p.Waiting)
			continue
		}
		used[p.node] = used[p.node].Plus(p.Ask.Resources)
		if d := r.nodes[p.node]; d != nil {
			d.places++
		}
	}
	for _, n := range nodes {
		n.Total.Workers = r.workersOf(n.ID)
		r.snap.SetNode(n, used[n.ID])
	}
	r.more, r.unsaid = false, true
	return nil
}

// workersOf returns how many workers a node may have at one time, which is no part of
// what it offers and is not stored.
func (r *Room) workersOf(id ident.Node) int64 {
	for _, c := range r.cfg.Nodes {
		if c.ID == id && c.Quota.Workers > 0 {
			return c.Quota.Workers
		}
	}
	return math.MaxInt32
}

func (r *Room) remember(p *place) {
	r.jobs[p.key()] = append(r.jobs[p.key()], p)
	r.byID[p.id] = p
}

func (r *Room) forget(p *place) {
	k := p.key()
	rest := r.jobs[k][:0]
	for _, q := range r.jobs[k] {
		if q != p {
			rest = append(rest, q)
		}
	}
	if len(rest) == 0 {
		delete(r.jobs, k)
	} else {
		r.jobs[k] = rest
	}
	delete(r.byID, p.id)
}

// register brings the nodes in line with the configuration.
func (t *turn) register() error {
	r := t.room
	wanted := map[ident.Node]bool{}
	for _, c := range r.cfg.Nodes {
		wanted[c.ID] = true
		n := Node{ID: c.ID, Provider: c.Provider, Zone: c.Zone, Pool: c.Pool, Labels: c.Labels, Total: c.Quota}
		n.Total.Workers = r.workersOf(n.ID)
		var used spec.Quota
		old, free, known := r.snap.Node(c.ID)
		if known {
			used = old.Total.Minus(free)
			n.Offer = old.Offer
		}
		if !known || old.Retired || old.Total != n.Total {
			n.Offer = ident.Offer(r.cfg.IDs("off"))
			t.emit(event.OfferCreated.Event(
				event.About{Tenant: nodeTenant, Key: string(n.ID), Twist: string(n.Offer), Correlation: string(n.ID), At: t.now},
				event.Offer{Offer: n.Offer, Node: n.ID, Quota: n.Total}))
		}
		if !known || !same(old, &n) {
			if err := saveNode(t.tx, &n); err != nil {
				return err
			}
			r.snap.SetNode(n, used)
		}
		if !known {
			r.nodes[c.ID] = &ledger{}
		}
		r.nodes[c.ID].unsaid, r.unsaid = true, true
	}
	for _, n := range slices.Clone(r.snap.nodes) {
		if wanted[n.ID] {
			continue
		}
		if r.nodes[n.ID].places == 0 {
			if err := t.drop(n.ID); err != nil {
				return err
			}
			continue
		}
		_, free, _ := r.snap.Node(n.ID)
		gone := *n
		gone.Retired = true
		if err := saveNode(t.tx, &gone); err != nil {
			return err
		}
		r.snap.SetNode(gone, n.Total.Minus(free))
	}
	for _, sh := range r.snap.shapes {
		for _, w := range sh.jobs {
			t.reconsider(t.of(w))
		}
	}
	return nil
}

// same says whether a configuration left a node as it was.
func same(a, b *Node) bool {
	x, y := *a, *b
	x.hash, y.hash = 0, 0
	if len(x.Labels) == 0 && len(y.Labels) == 0 {
		x.Labels, y.Labels = nil, nil
	}
	return reflect.DeepEqual(x, y)
}
