package bus

import (
	"context"
	"sync"
	"time"

	"fragua.dev/fragua/internal/sqldb"
)

const (
	maxHanded   = 20_000 // committed events that wait in memory; more are read from the outbox
	maxInFlight = 20_000 // events that are sent and not acknowledged
	pageSize    = 500
	readAgain   = 250 * time.Millisecond // after the outbox could not be read
)

// A cursor walks an outbox in commit order: in memory while it keeps up, in the
// database when it does not, and at the start.
type cursor struct {
	bus  *Bus
	room string
	db   *sqldb.DB
	send func(row sqldb.Row, done func())
	wake chan struct{}
	// before, if any, is called until it succeeds, before anything is sent.
	before func(context.Context) error
	// gather is how long what is committed waits for company, once more than one
	// event came together. Zero: not at all.
	gather time.Duration

	mu      sync.Mutex
	handed  []sqldb.Row // committed, not yet sent
	spare   []sqldb.Row // the space of those before, empty
	spilled bool        // handed is not whole: read on from the outbox
	busy    bool        // some may be neither handed any more nor sent yet
	sent    int64
	undone  map[int64]struct{} // sent, and not acknowledged
}

func newCursor(b *Bus, room string, db *sqldb.DB, send func(sqldb.Row, func())) *cursor {
	return &cursor{
		bus: b, room: room, db: db, send: send, spilled: true,
		wake: make(chan struct{}, 1), undone: map[int64]struct{}{},
	}
}

func (c *cursor) hand(rows []sqldb.Row) {
	c.mu.Lock()
	if !c.spilled {
		if len(c.handed)+len(rows) > maxHanded {
			c.spilled = true
		} else {
			c.handed = append(c.handed, rows...)
		}
	}
	c.mu.Unlock()
	c.nudge()
}

func (c *cursor) nudge() { nudge(c.wake) }

// pending returns how many events are on their way; where nobody can tell yet whether
// there are more, one more.
func (c *cursor) pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.undone) + len(c.handed)
	if c.spilled || c.busy {
		n++
	}
	return n
}

// idle says whether everything that was sent is acknowledged.
func (c *cursor) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.undone) == 0
}

// low returns up to where everything is sent and acknowledged.
func (c *cursor) low() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	low := c.sent
	for seq := range c.undone {
		low = min(low, seq-1)
	}
	return low
}

func (c *cursor) run() {
	for c.before != nil && c.bus.ctx.Err() == nil {
		err := c.before(c.bus.ctx)
		if err == nil {
			break
		}
		if c.bus.ctx.Err() == nil {
			c.bus.cfg.Log.Warn("an outbox waits", "room", c.room, "error", err)
		}
		pause(c.bus.ctx, readAgain)
	}
	for c.bus.ctx.Err() == nil {
		rows, err := c.next()
		if err != nil && c.bus.ctx.Err() == nil {
			c.bus.cfg.Log.Error("outbox cannot be read", "room", c.room, "error", err)
			time.AfterFunc(readAgain, c.nudge)
		}
		for _, row := range rows {
			c.start(row)
		}
		c.reuse(rows)
		if n := len(rows); n > 1 && n < pageSize && c.gather > 0 {
			pause(c.bus.ctx, c.gather)
		}
		if len(rows) > 0 {
			continue
		}
		c.rest()
		select {
		case <-c.wake:
		case <-c.bus.ctx.Done():
		}
	}
}

// rest notes that all that was handed out is sent.
func (c *cursor) rest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
}

// next returns what is to be sent; nothing when too much is on its way.
func (c *cursor) next() ([]sqldb.Row, error) {
	c.mu.Lock()
	c.busy = true
	if len(c.undone) >= maxInFlight {
		c.mu.Unlock()
		return nil, nil
	}
	if !c.spilled {
		rows := c.handed
		c.handed, c.spare = c.spare, nil
		c.mu.Unlock()
		return rows, nil
	}
	c.handed = nil
	after := c.sent
	c.mu.Unlock()
	rows, err := c.db.Outbox(c.bus.ctx, after, pageSize)
	if err != nil || len(rows) == pageSize {
		return rows, err
	}
	// Nearly through. From here on hand keeps rows again; those that were
	// committed meanwhile are read in one more, last page.
	c.mu.Lock()
	c.spilled = false
	c.mu.Unlock()
	if len(rows) > 0 {
		after = rows[len(rows)-1].Seq
	}
	last, err := c.db.Outbox(c.bus.ctx, after, maxHanded)
	if err != nil || len(last) == maxHanded {
		c.mu.Lock()
		c.spilled = true
		c.mu.Unlock()
		return rows, err
	}
	return append(rows, last...), nil
}

// reuse keeps the space of rows that are sent for those to come.
func (c *cursor) reuse(rows []sqldb.Row) {
	if n := cap(rows); n == 0 || n > pageSize {
		return
	}
	clear(rows)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spare = rows[:0]
}

// start sends a row, unless it was sent before.
func (c *cursor) start(row sqldb.Row) {
	c.mu.Lock()
	if row.Seq <= c.sent {
		c.mu.Unlock()
		return
	}
	c.sent = row.Seq
	c.undone[row.Seq] = struct{}{}
	c.mu.Unlock()
	c.send(row, func() { c.done(row.Seq) })
}

func (c *cursor) done(seq int64) {
	c.mu.Lock()
	full := len(c.undone) >= maxInFlight
	delete(c.undone, seq)
	c.mu.Unlock()
	if full {
		c.nudge()
	}
}
