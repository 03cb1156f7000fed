package bus

import (
	"context"
	"fmt"
	"time"

	"fragua.dev/fragua/contract/event"
)

const gatherMost = 2048 // events of one batch

// A batcher is how a room hears events together.
type batcher struct {
	handle func(context.Context, []event.Event) error
	wait   time.Duration
}

// Together has a room hear subjects in batches: what nobody waits for, such as a
// read model or an audit trail, is cheaper to write down together. The first event
// of a batch waits for others, for wait at most. Events come in the order in which
// they were said by each room. handle is not called by two at the same time; when
// it fails for a batch, it is called for each event by itself, so that one that
// cannot be handled holds up no other. A room hears together once.
func Together(wait time.Duration, handle func(context.Context, []event.Event) error, subjects ...string) []Subscription {
	b := &batcher{handle, wait}
	var out []Subscription
	for _, s := range subjects {
		out = append(out, Subscription{
			Subject: s, batch: b,
			Handle: func(ctx context.Context, e event.Event) error { return handle(ctx, []event.Event{e}) },
		})
	}
	return out
}

// collect hands what comes into a room's batches on, until the bus stops.
func (b *Bus) collect(r *room) {
	var events []event.Event
	for {
		select {
		case d := <-r.batches:
			batch := b.gather(r, d)
			events = events[:0]
			for _, d := range batch {
				events = append(events, d.e)
			}
			b.handleBatch(r, batch, events)
		case <-b.ctx.Done():
			return
		}
	}
}

// gather waits a moment for what comes after first.
func (b *Bus) gather(r *room, first delivery) []delivery {
	batch := []delivery{first}
	t := time.NewTimer(r.batch.wait)
	defer t.Stop()
	for len(batch) < gatherMost {
		select {
		case d := <-r.batches:
			batch = append(batch, d)
		case <-t.C:
			return batch
		case <-b.ctx.Done():
			return batch
		}
	}
	return batch
}

func (b *Bus) handleBatch(r *room, batch []delivery, events []event.Event) {
	if len(batch) > 1 {
		ctx, cancel := context.WithTimeout(b.ctx, handleTime)
		err := guard(func() error { return r.batch.handle(ctx, events) })
		cancel()
		if err == nil {
			for _, d := range batch {
				d.ack()
			}
			return
		}
	}
	for _, d := range batch {
		b.handle(r, d)
	}
}

// guard calls fn; a panic in it is an error.
func guard(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return fn()
}
