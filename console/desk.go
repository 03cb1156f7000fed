package console

import (
	"context"
	"maps"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/sqldb"
)

// What is heard is written down together: whoever waits for it holds up nobody
// but other events of the same job.
const (
	gatherTime = 20 * time.Millisecond // for which the first of a batch waits for others
	gatherMost = 32                    // events that are worth a write at once
	maxBatch   = 256
	maxCache   = 20_000 // jobs that live and are remembered
	writeTime  = 30 * time.Second
)

// A change is an event that waits to be written down.
type change struct {
	e    event.Event
	d    told
	done chan error
}

// Subscriptions returns what the room hears.
func (r *Room) Subscriptions() []bus.Subscription {
	var out []bus.Subscription
	for _, subject := range []string{
		event.JobRequested.Subject, event.AssignmentCreated.Subject, event.JobStarted.Subject,
		event.StepStarted.Subject, event.StepFailed.Subject, event.JobRetrying.Subject,
		event.JobCompleted.Subject, event.JobFailed.Subject, event.JobCancelled.Subject, event.JobTerminated.Subject,
	} {
		out = append(out, bus.Subscription{Subject: subject, Handle: r.hear})
	}
	return out
}

// hear returns when what e says of a job is durable.
func (r *Room) hear(ctx context.Context, e event.Event) error {
	d, err := read(e)
	if err != nil {
		return err
	}
	if d.Job == "" || d.Attempt == 0 || e.Tenant == "" {
		return nil // of a step or a place that someone asked for by hand, and no job
	}
	c := &change{e, d, make(chan error, 1)}
	select {
	case r.changes <- c:
	case <-r.quit:
		return sqldb.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c.done:
		return err
	case <-r.gone:
		select {
		case err := <-c.done:
			return err
		default:
			return sqldb.ErrClosed
		}
	case <-ctx.Done():
		return ctx.Err()
	}
}

// work is the one goroutine that writes jobs.
func (r *Room) work() {
	defer close(r.gone)
	for {
		select {
		case c := <-r.changes:
			r.write(r.gather(c))
		case <-r.quit:
			return
		}
	}
}

// gather waits a moment for what else is to be written.
func (r *Room) gather(c *change) []*change {
	batch := []*change{c}
	t := time.NewTimer(gatherTime)
	defer t.Stop()
	for len(batch) < gatherMost {
		select {
		case c := <-r.changes:
			batch = append(batch, c)
			continue
		case <-t.C:
		case <-r.quit:
		}
		break
	}
	for len(batch) < maxBatch {
		select {
		case c := <-r.changes:
			batch = append(batch, c)
			continue
		default:
		}
		break
	}
	return batch
}

// write writes a batch down; where that fails, each by itself, so that one that
// cannot be written holds up no other.
func (r *Room) write(batch []*change) {
	ctx, cancel := context.WithTimeout(context.Background(), writeTime)
	defer cancel()
	err := r.commit(ctx, batch)
	if err == nil || len(batch) == 1 {
		for _, c := range batch {
			c.done <- err
		}
		return
	}
	for _, c := range batch {
		c.done <- r.commit(ctx, []*change{c})
	}
}

func (r *Room) commit(ctx context.Context, batch []*change) error {
	var now map[jobKey]job
	err := r.db.Write(ctx, func(tx *sqldb.Tx) error {
		was := map[jobKey]job{}
		now = map[jobKey]job{}
		for _, c := range batch {
			k := jobKey{c.e.Tenant, c.d.Job}
			j, seen := now[k]
			if !seen {
				var err error
				if j, seen = r.cache[k]; !seen {
					if j, err = load(tx, k); err != nil {
						return err
					}
				}
				was[k] = j
			}
			now[k] = j.hear(c.e, c.d)
		}
		for k, j := range now {
			if err := save(tx, was[k], j); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for k, j := range now {
		if class(j.state) == 0 {
			r.cache[k] = j
		} else {
			delete(r.cache, k)
		}
	}
	for k := range maps.Keys(r.cache) {
		if len(r.cache) <= maxCache {
			break
		}
		delete(r.cache, k)
	}
	return nil
}
