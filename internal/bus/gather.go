package bus

import (
	"context"
	"fmt"
	"sync"
	"time"

	"fragua.dev/fragua/contract/event"
)

const gatherMost = 2048 // events of a batch, or up to twice as many that came at once

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

// A basket is where a room's next batch gathers. To put an event into it wakes
// nobody but for the first.
type basket struct {
	ctx   context.Context
	first chan struct{} // there is something
	full  chan struct{} // there is a whole batch

	mu    sync.Mutex
	room  *sync.Cond // there is room again, or ctx has ended
	holds []delivery
	spare []delivery // the space of the batch before, empty
}

func newBasket(ctx context.Context) *basket {
	k := &basket{ctx: ctx, first: make(chan struct{}, 1), full: make(chan struct{}, 1)}
	k.room = sync.NewCond(&k.mu)
	context.AfterFunc(ctx, func() {
		k.mu.Lock() // whoever looked before ctx ended waits by now
		defer k.mu.Unlock()
		k.room.Broadcast()
	})
	return k
}

// put adds d. It waits while two batches are in the basket, or returns when ctx ends.
func (k *basket) put(d delivery) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.holds) >= 2*gatherMost && k.ctx.Err() == nil {
		k.room.Wait()
	}
	switch k.holds = append(k.holds, d); len(k.holds) {
	case 1:
		nudge(k.first)
	case gatherMost:
		nudge(k.full)
	}
}

func (k *basket) take() []delivery {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := k.holds
	k.holds, k.spare = k.spare, nil
	select {
	case <-k.full:
	default:
	}
	k.room.Broadcast()
	return out
}

// reuse keeps the space of a batch that is handled for those to come.
func (k *basket) reuse(batch []delivery) {
	if cap(batch) > gatherMost {
		return // of a rush
	}
	clear(batch)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.spare = batch[:0]
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// collect hands what comes into a room's basket on, until the bus stops.
func (b *Bus) collect(r *room) {
	var events []event.Event
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-r.basket.first:
		case <-b.ctx.Done():
			return
		}
		t.Reset(r.batch.wait)
		select {
		case <-t.C:
		case <-r.basket.full:
		case <-b.ctx.Done():
			return
		}
		batch := r.basket.take()
		events = events[:0]
		for _, d := range batch {
			events = append(events, d.e)
		}
		b.handleBatch(r, batch, events)
		r.basket.reuse(batch)
	}
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
