package console

import (
	"context"
	"fmt"
	"maps"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/sqldb"
)

const (
	hearTime = 100 * time.Millisecond // that a change may be late: more are written down together
	maxCache = 20_000                 // jobs that live and are remembered
)

// A change is what an event says of a job.
type change struct {
	e event.Event
	d told
}

// Subscriptions returns what the room hears: nobody waits for it but people.
func (r *Room) Subscriptions() []bus.Subscription {
	return bus.Together(hearTime, r.hear,
		event.RunStarted.Subject, event.JobRequested.Subject, event.AssignmentCreated.Subject, event.JobStarted.Subject,
		event.StepStarted.Subject, event.StepFailed.Subject, event.JobRetrying.Subject,
		event.JobCompleted.Subject, event.JobFailed.Subject, event.JobCancelled.Subject, event.JobTerminated.Subject,
	)
}

// hear writes down what events say of jobs.
func (r *Room) hear(ctx context.Context, events []event.Event) error {
	batch := make([]change, 0, len(events))
	for _, e := range events {
		if e.Subject == event.RunStarted.Subject {
			all, err := begun(e)
			if err != nil {
				return err
			}
			batch = append(batch, all...)
			continue
		}
		d, err := read(e)
		if err != nil {
			return err
		}
		if d.Job == "" || d.Attempt == 0 || e.Tenant == "" {
			continue // of a step or a place that someone asked for by hand, and no job
		}
		batch = append(batch, change{e, d})
	}
	if len(batch) == 0 {
		return nil
	}
	r.desk.Lock() // tests and a batch that is taken apart call this, too
	defer r.desk.Unlock()
	return r.commit(ctx, batch)
}

// begun returns what the beginning of a run says of each of its jobs: those that wait
// for others are heard of by nothing else until they have a turn, or will never have.
func begun(e event.Event) ([]change, error) {
	d, err := event.RunStarted.Read(e)
	if err != nil {
		return nil, fmt.Errorf("console: event %s: %w", e.ID, err)
	}
	if e.Tenant == "" {
		return nil, nil
	}
	var all []change
	for _, j := range d.Jobs {
		all = append(all, change{e, told{Job: j.Job, Name: j.Name, Pipeline: d.Pipeline, Run: d.Run, Attempt: 1}})
	}
	return all, nil
}

func (r *Room) commit(ctx context.Context, batch []change) error {
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
