package bus

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/sqldb"
)

const sweepEvery = 250 * time.Millisecond

// A relay carries one outbox both ways, and empties it.
type relay struct {
	bus           *Bus
	room          string
	db            *sqldb.DB
	local, remote *cursor // remote is nil without a stream
	settling      []mark
	forgotten     int64
}

// A mark says that the stream had acknowledged everything up to seq at a time.
type mark struct {
	at  time.Time
	seq int64
}

func newRelay(b *Bus, name string, db *sqldb.DB) *relay {
	r := &relay{bus: b, room: name, db: db}
	r.local = newCursor(b, name, db, r.deliver)
	if b.cfg.Stream != nil {
		r.remote = newCursor(b, name, db, r.publish)
	}
	return r
}

// committed takes over what a commit emitted. It is called by the writer, and
// must be quick.
func (r *relay) committed(rows []sqldb.Row) {
	r.local.hand(rows)
	if r.remote != nil {
		r.remote.hand(rows)
	}
}

func (r *relay) start(ctx context.Context) error {
	if _, err := r.db.Outbox(ctx, 0, 1); err != nil {
		return fmt.Errorf("bus: outbox of %s: %w", r.room, err)
	}
	r.bus.wg.Go(r.local.run)
	if r.remote != nil {
		r.bus.wg.Go(r.remote.run)
	}
	r.bus.wg.Go(r.sweep)
	return nil
}

// deliver hands a row to the listeners of this process.
func (r *relay) deliver(row sqldb.Row, done func()) {
	if entry, known := event.Lookup(row.Event.Subject); !known || entry.Owner != r.room && entry.Owner != "security" {
		r.bus.cfg.Log.Error("event is not its room's to say", "event", row.Event.ID, "room", r.room)
	}
	listeners := r.bus.subs[row.Event.Subject]
	if len(listeners) == 0 {
		done()
		return
	}
	var left atomic.Int32
	left.Store(int32(len(listeners)))
	for _, l := range listeners {
		var once atomic.Bool // copies of one delivery acknowledge once
		r.bus.deliver(l, delivery{e: row.Event, ack: func() {
			if once.CompareAndSwap(false, true) && left.Add(-1) == 0 {
				done()
			}
		}})
	}
}

func (r *relay) publish(row sqldb.Row, done func()) {
	entry, known := event.Lookup(row.Event.Subject)
	if !known {
		done()
		return
	}
	r.bus.cfg.Stream.publish(r.bus.ctx, row, entry, done)
}

// sweep forgets, now and then, what every listener and the stream's disk have.
func (r *relay) sweep() {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			r.forget()
		case <-r.bus.ctx.Done():
			return
		}
	}
}

func (r *relay) forget() {
	upTo := min(r.local.low(), r.settled())
	if upTo <= r.forgotten {
		return
	}
	ctx, cancel := context.WithTimeout(r.bus.ctx, handleTime)
	defer cancel()
	if err := r.db.Write(ctx, func(tx *sqldb.Tx) error { return tx.Forget(upTo) }); err != nil {
		if r.bus.ctx.Err() == nil {
			r.bus.cfg.Log.Warn("outbox cannot be swept", "room", r.room, "error", err)
		}
		return
	}
	r.forgotten = upTo
}

// settled returns up to where the stream has everything on its disk: what it
// acknowledged more than twice its interval between syncs ago.
func (r *relay) settled() int64 {
	if r.remote == nil {
		return r.local.low()
	}
	now := r.bus.cfg.Now()
	low := r.remote.low()
	if n := len(r.settling); low > r.forgotten && (n == 0 || r.settling[n-1].seq < low) {
		r.settling = append(r.settling, mark{now, low})
	}
	seq := r.forgotten
	for len(r.settling) > 0 && now.Sub(r.settling[0].at) >= 2*syncInterval {
		seq = r.settling[0].seq
		r.settling = r.settling[1:]
	}
	return seq
}
