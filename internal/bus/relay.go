package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/sqldb"
)

const (
	// gatherOutside is for streams that no room waits for: those outside may hear a
	// moment later, and many messages at once cost less.
	gatherOutside = 20 * time.Millisecond
	sweepEvery    = 250 * time.Millisecond
	compareTime   = 30 * time.Second
	clockSlack    = 5 * time.Second // by which the machine's clock may have been set back
	noteEvery     = time.Second
	// writeback is when the kernel has surely written what a process that was
	// killed had handed to it: 30 s by default, and a margin.
	writeback = 45 * time.Second
)

// wayEnd is the way of the mark that the last process to carry an outbox left when it
// had carried everything that it ever sent.
const wayEnd = "end"

// A relay carries one outbox both ways, and empties it.
type relay struct {
	bus           *Bus
	room          string
	db            *sqldb.DB
	local, remote *cursor      // remote is nil without a stream
	way           string       // the name of the stream's marks
	settling      []sqldb.Mark // what the stream acknowledged to this process, and when
	earlier       []sqldb.Mark // and to those before it
	settled       int64        // up to where the stream has surely everything on its disk
	noted         sqldb.Mark   // the last mark of the stream that was saved
	handled       int64        // the last mark of the local way that was saved
	forgotten     int64
	own           atomic.Int64 // the first event of this process; 0 until there is one

	mu    sync.Mutex
	had   map[ident.Event]bool // what the stream has of the outbox from before this process
	until int64                // the last of the outbox from before
	whole bool                 // everything of it was found until now
	found sqldb.Mark           // up to where it was whole, and when that was seen
	look  chan struct{}        // something may be forgotten at once
}

func newRelay(b *Bus, name string, db *sqldb.DB) *relay {
	r := &relay{bus: b, room: name, db: db, whole: true, look: make(chan struct{}, 1)}
	r.local = newCursor(b, name, db, r.deliver)
	if b.cfg.Stream != nil {
		r.remote = newCursor(b, name, db, r.publish)
		r.remote.before = r.compare
		if b.cfg.Stream.joined() {
			r.remote.gather = gatherOutside
		}
	}
	return r
}

// committed takes over what a commit emitted. It is called by the writer, and
// must be quick.
func (r *relay) committed(rows []sqldb.Row) {
	r.own.CompareAndSwap(0, rows[0].Seq)
	r.local.hand(rows)
	if r.remote != nil {
		r.remote.hand(rows)
	}
}

func (r *relay) start(ctx context.Context) error {
	// What every local room had handled before this process began is not handed out
	// again: else a program that is killed again and again would get no further.
	marks, err := r.db.Marks(ctx, "local")
	if err == nil && len(marks) > 0 {
		r.handled = marks[len(marks)-1].Seq
		r.local.sent = r.handled
	}
	if err == nil && r.remote != nil {
		err = r.resume(ctx)
	}
	if err != nil {
		return fmt.Errorf("bus: outbox of %s: %w", r.room, err)
	}
	r.bus.wg.Go(r.local.run)
	if r.remote != nil {
		r.bus.wg.Go(r.remote.run)
	}
	r.bus.wg.Go(r.sweep)
	return nil
}

// resume begins where those before this process had come to with the stream.
func (r *relay) resume(ctx context.Context) error {
	s := r.bus.cfg.Stream
	r.way = "stream"
	if s.boot != "" {
		r.way += "/" + s.boot
	}
	marks, err := r.db.Marks(ctx, r.way)
	if err != nil {
		return err
	}
	marks = slices.DeleteFunc(marks, func(m sqldb.Mark) bool { return m.At.Before(s.born) })
	switch {
	case s.boot == "":
		r.earlier = marks
	case len(marks) > 0:
		// The kernel that took over what was acknowledged then still runs, and was made
		// to write it when this process began.
		r.settled = marks[len(marks)-1].Seq
		r.remote.sent = r.settled
		ends, err := r.db.Marks(ctx, wayEnd)
		if err != nil {
			return err
		}
		if n := len(ends); n > 0 && ends[n-1] == marks[len(marks)-1] {
			r.remote.before = nil // what was said after it, nobody has published
		}
	}
	return r.db.Write(ctx, func(tx *sqldb.Tx) error { return tx.ForgetMarks("local", r.way) })
}

// finish notes how far the outbox was carried, once nothing is carried any more; and
// that it is all, if the stream has acknowledged whatever it was sent. What a room says
// when it closes comes after that.
func (r *relay) finish(ctx context.Context) error {
	if r.remote == nil || r.way == "" {
		return nil
	}
	local, stream := sqldb.Mark{Seq: r.local.low(), At: time.UnixMilli(0)}, sqldb.Mark{Seq: r.remote.low(), At: r.bus.cfg.Now()}
	return r.db.Write(ctx, func(tx *sqldb.Tx) error {
		err := errors.Join(tx.SetMark("local", local, local.At), tx.SetMark(r.way, stream, stream.At.Add(-2*writeback)))
		if err == nil && r.remote.idle() {
			err = tx.SetMark(wayEnd, stream, stream.At)
		}
		return err
	})
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
		r.bus.deliver(l, delivery{e: row.Event, fresh: row.Fresh && r.bus.cfg.Faults == nil, ack: func() {
			if once.CompareAndSwap(false, true) && left.Add(-1) == 0 {
				done()
			}
		}})
	}
}

// compare finds out what the stream has already of what the outbox still holds: only
// the rest is published. Else a program that is killed again and again would publish
// the same beginning again and again, and get no further.
func (r *relay) compare(parent context.Context) error {
	ctx, cancel := context.WithTimeout(parent, compareTime)
	defer cancel()
	first, err := r.db.Outbox(ctx, r.remote.low(), 1)
	if err != nil || len(first) == 0 {
		return err
	}
	until := r.own.Load() - 1
	if until < 0 {
		if err := r.db.QueryRow(ctx, `SELECT MAX(seq) FROM outbox`).Scan(&until); err != nil {
			return err
		}
	}
	if first[0].Seq > until { // nothing is from before
		return nil
	}
	var says []string
	for _, e := range event.Catalog() {
		if e.Owner == r.room || e.Owner == "security" {
			says = append(says, e.Subject)
		}
	}
	had, err := r.bus.cfg.Stream.stored(ctx, says, first[0].Event.Time.Add(-clockSlack))
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && parent.Err() == nil {
		r.bus.cfg.Log.Warn("the stream does not say in time what it has: some events may be in it twice", "room", r.room, "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.had, r.until = had, until
	return nil
}

// hadBefore says whether the stream has a row from before this process.
func (r *relay) hadBefore(row sqldb.Row, keep event.Keep) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	there := r.had[row.Event.ID] && row.Seq <= r.until
	if r.whole = r.whole && (there || keep == event.KeepNothing && row.Seq <= r.until); r.whole {
		r.found = sqldb.Mark{At: r.bus.cfg.Now(), Seq: row.Seq}
	}
	if r.had != nil && row.Seq >= r.until { // what is committed from here on, nobody has
		r.had = nil
		nudge(r.look)
	}
	return there
}

func (r *relay) publish(row sqldb.Row, done func()) {
	entry, known := event.Lookup(row.Event.Subject)
	if had := r.hadBefore(row, entry.Keep); had || !known {
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
		case <-r.look:
			r.forget()
		case <-r.bus.ctx.Done():
			return
		}
	}
}

func (r *relay) forget() {
	now := r.bus.cfg.Now()
	local, stream := r.local.low(), r.settle(now)
	upTo := min(local, stream)
	note := r.remote != nil && r.settling != nil && now.Sub(r.noted.At) >= noteEvery && r.settling[len(r.settling)-1].Seq > r.noted.Seq
	if upTo <= r.forgotten && local <= r.handled && !note {
		return
	}
	ctx, cancel := context.WithTimeout(r.bus.ctx, handleTime)
	defer cancel()
	err := r.db.Write(ctx, func(tx *sqldb.Tx) error {
		if err := tx.SetMark("local", sqldb.Mark{Seq: local, At: time.UnixMilli(0)}, time.UnixMilli(0)); err != nil {
			return err
		}
		if note {
			last := r.settling[len(r.settling)-1]
			if err := tx.SetMark(r.way, sqldb.Mark{At: now, Seq: last.Seq}, now.Add(-2*writeback)); err != nil {
				return err
			}
		}
		if upTo <= r.forgotten {
			return nil
		}
		return tx.Forget(upTo)
	})
	if err != nil {
		if r.bus.ctx.Err() == nil {
			r.bus.cfg.Log.Warn("outbox cannot be swept", "room", r.room, "error", err)
		}
		return
	}
	r.handled, r.forgotten = local, max(r.forgotten, upTo)
	if note {
		r.noted = sqldb.Mark{At: now, Seq: r.settling[len(r.settling)-1].Seq}
	}
}

// settle returns up to where the stream has everything on its disk: what it
// acknowledged to this process more than twice its interval between syncs ago, or
// to one before it so long ago that the kernel has written it.
func (r *relay) settle(now time.Time) int64 {
	if r.remote == nil {
		return r.local.low()
	}
	low := r.remote.low()
	// What was found in the stream is on its disk: at once, if this process synced it
	// when it began, and else when the kernel has written it.
	patience := 2 * syncInterval
	r.mu.Lock()
	found := r.found
	r.mu.Unlock()
	if r.bus.cfg.Stream.synced {
		r.settled = max(r.settled, min(low, found.Seq))
	} else if found.Seq > 0 && now.Sub(found.At) < writeback {
		patience = writeback
	}
	if n := len(r.settling); low > r.settled && (n == 0 || r.settling[n-1].Seq < low) {
		r.settling = append(r.settling, sqldb.Mark{At: now, Seq: low})
	}
	for len(r.settling) > 1 && now.Sub(r.settling[0].At) >= patience {
		r.settled = max(r.settled, r.settling[0].Seq)
		r.settling = r.settling[1:]
	}
	if len(r.settling) == 1 && now.Sub(r.settling[0].At) >= patience {
		r.settled = max(r.settled, r.settling[0].Seq)
	}
	for len(r.earlier) > 0 && now.Sub(r.earlier[0].At) >= writeback {
		r.settled = max(r.settled, r.earlier[0].Seq)
		r.earlier = r.earlier[1:]
	}
	return r.settled
}
