package bus

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/sqldb"
)

// ErrLater says that an event came too early. It is delivered again.
var ErrLater = errors.New("too early")

// Bounds of delivery.
const (
	shards     = 48 // handlers of one room that run at the same time
	shardQueue = 32 // events that wait for one of them
	maxTries   = 3  // of a handler that fails
	maxLater   = time.Minute
	firstLater = 2 * time.Millisecond
	mostLater  = time.Second
	handleTime = 2 * time.Minute // a handler's deadline
	arriveTime = time.Second     // for what is on its way to the stream at the end
)

// A Subscription is one thing a room listens to.
type Subscription struct {
	Subject string
	Handle  func(context.Context, event.Event) error
	batch   *batcher // see Together; nil: one by one
}

// On calls handle with the data of each event of kind k.
func On[T any](k event.Kind[T], handle func(context.Context, event.Event, T) error) Subscription {
	return Subscription{Subject: k.Subject, Handle: func(ctx context.Context, e event.Event) error {
		data, err := k.Read(e)
		if err != nil {
			return err
		}
		return handle(ctx, e, data)
	}}
}

// Faults decides how an event is delivered to a room: one entry for each copy,
// its delay. None loses it, for now: it is redelivered.
type Faults func(room string, e event.Event) []time.Duration

// Config is what a Bus is made of.
type Config struct {
	Log    *slog.Logger
	Now    func() time.Time
	Stream *Stream                          // nil: no NATS, for simulations
	Faults Faults                           // nil: none
	Alert  func(event.Event, string, error) // an event was set aside by a room
}

// Bus carries events between the rooms of one process, and to the stream.
type Bus struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	seed   maphash.Seed
	rooms  map[string]*room
	subs   map[string][]*room // by subject
	relays []*relay
}

// A room is a listener: its handlers, and the queues in front of them.
type room struct {
	name   string
	db     *sqldb.DB
	handle map[string]func(context.Context, event.Event) error
	queue  [shards]chan delivery

	// What is heard in batches.
	batch    *batcher
	basket   *basket
	together map[string]bool // subjects
}

// A delivery is one event on its way to one room.
type delivery struct {
	e     event.Event
	ack   func() // the event is dealt with
	fresh bool
	tries int
	since time.Time
	wait  time.Duration
}

// New returns a bus that nobody listens to yet.
func New(cfg Config) *Bus {
	ctx, cancel := context.WithCancel(context.Background())
	if cfg.Alert == nil {
		cfg.Alert = func(event.Event, string, error) {}
	}
	return &Bus{cfg: cfg, ctx: ctx, cancel: cancel, seed: maphash.MakeSeed(), rooms: map[string]*room{}, subs: map[string][]*room{}}
}

// Listen adds what a room hears; what it cannot handle is set aside in db. All
// rooms listen before Start.
func (b *Bus) Listen(name string, db *sqldb.DB, subs ...Subscription) {
	r := &room{name: name, db: db, handle: map[string]func(context.Context, event.Event) error{},
		basket: newBasket(b.ctx), together: map[string]bool{}}
	for i := range r.queue {
		r.queue[i] = make(chan delivery, shardQueue)
	}
	for _, s := range subs {
		r.handle[s.Subject] = s.Handle
		if s.batch != nil {
			r.batch, r.together[s.Subject] = s.batch, true
		}
		b.subs[s.Subject] = append(b.subs[s.Subject], r)
	}
	b.rooms[name] = r
}

// Carry relays the events that the room called name commits to db.
func (b *Bus) Carry(name string, db *sqldb.DB) {
	r := newRelay(b, name, db)
	b.relays = append(b.relays, r)
	db.OnCommit(r.committed)
}

// Start begins delivery, first of what the outboxes still hold.
func (b *Bus) Start(ctx context.Context) error {
	for _, r := range b.rooms {
		for _, q := range r.queue {
			b.wg.Go(func() { b.work(r, q) })
		}
		if r.batch != nil {
			b.wg.Go(func() { b.collect(r) })
		}
	}
	for _, r := range b.relays {
		if err := r.start(ctx); err != nil {
			return err
		}
	}
	if s := b.cfg.Stream; s != nil {
		b.wg.Go(func() { s.await(b.ctx) })
		for _, r := range b.rooms {
			if err := s.consume(ctx, b, r); err != nil {
				return fmt.Errorf("bus: %s: %w", r.name, err)
			}
		}
	}
	return nil
}

// Stop ends delivery. What is not handled yet stays in the outboxes; what is on its
// way to the stream has a moment to arrive, so that the next start need not ask
// whether it did.
func (b *Bus) Stop() {
	if b.ctx.Err() == nil && b.cfg.Stream != nil {
		for end := time.Now().Add(arriveTime); b.Unpublished() > 0 && time.Now().Before(end); {
			pause(b.ctx, arriveTime/200)
		}
	}
	b.cancel()
	b.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), arriveTime)
	defer cancel()
	for _, r := range b.relays {
		if err := r.finish(ctx); err != nil {
			b.cfg.Log.Warn("how far an outbox was carried is not noted", "room", r.room, "error", err)
		}
	}
}

// Pending returns how many events of the outboxes are on their way to local
// rooms.
func (b *Bus) Pending() int {
	n := 0
	for _, r := range b.relays {
		n += r.local.pending()
	}
	return n
}

// Unpublished returns how many events of the outboxes are on their way to the
// stream.
func (b *Bus) Unpublished() int {
	n := 0
	for _, r := range b.relays {
		if r.remote != nil {
			n += r.remote.pending()
		}
	}
	return n
}

// deliver hands d to a room, or returns when the bus stops.
func (b *Bus) deliver(r *room, d delivery) {
	d.since = b.cfg.Now()
	if b.cfg.Faults == nil {
		b.enqueue(r, d)
		return
	}
	delays := b.cfg.Faults(r.name, d.e)
	if len(delays) == 0 { // lost: it comes again
		b.later(r, d, mostLater)
		return
	}
	for _, delay := range delays {
		if delay == 0 {
			b.enqueue(r, d)
		} else {
			b.later(r, d, delay)
		}
	}
}

func (b *Bus) enqueue(r *room, d delivery) {
	key := d.e.Key
	if key == "" {
		key = string(d.e.ID)
	}
	if r.together[d.e.Subject] {
		r.basket.put(d)
		return
	}
	select {
	case r.queue[maphash.String(b.seed, key)%shards] <- d:
	case <-b.ctx.Done():
	}
}

func (b *Bus) later(r *room, d delivery, delay time.Duration) {
	b.wg.Go(func() {
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-t.C:
			b.enqueue(r, d)
		case <-b.ctx.Done():
		}
	})
}

type freshKey struct{}

// Fresh says whether the event that a handler was called with cannot have been
// handled before: this process said it, and delivers it for the first time. Who
// asks need not look for traces of an earlier time.
func Fresh(ctx context.Context) bool {
	fresh, _ := ctx.Value(freshKey{}).(bool)
	return fresh
}

// work handles what comes into one queue of a room.
func (b *Bus) work(r *room, q chan delivery) {
	for {
		select {
		case d := <-q:
			b.handle(r, d)
		case <-b.ctx.Done():
			return
		}
	}
}

func (b *Bus) handle(r *room, d delivery) {
	ctx, cancel := context.WithTimeout(b.ctx, handleTime)
	defer cancel()
	if d.fresh {
		ctx = context.WithValue(ctx, freshKey{}, true)
		d.fresh = false // of another try it is not
	}
	err := guard(func() error { return r.handle[d.e.Subject](ctx, d.e) })
	switch {
	case err == nil:
		d.ack()
		return
	case b.ctx.Err() != nil:
		return
	case errors.Is(err, ErrLater) && b.cfg.Now().Sub(d.since) < maxLater:
		d.wait = min(max(2*d.wait, firstLater), mostLater)
	default:
		if d.tries++; d.tries >= maxTries {
			if b.setAside(ctx, r, d, err) {
				return
			}
		}
		d.wait = 100 * time.Millisecond << min(d.tries, 6)
		b.cfg.Log.Warn("event will be delivered again", "event", d.e.ID, "room", r.name, "try", d.tries, "error", err)
	}
	b.later(r, d, d.wait+rand.N(d.wait))
}

// setAside keeps an event that a room cannot handle where people find it, and
// says whether that is durable.
func (b *Bus) setAside(ctx context.Context, r *room, d delivery, cause error) bool {
	if r.db != nil {
		at := b.cfg.Now().UnixMilli()
		err := r.db.Write(ctx, func(tx *sqldb.Tx) error { return tx.SetAside(d.e, r.name, cause.Error(), at) })
		if err != nil {
			return false
		}
	}
	b.cfg.Log.Error("event set aside", "event", d.e.ID, "room", r.name, "error", cause)
	b.cfg.Alert(d.e, r.name, cause)
	d.ack()
	return true
}
