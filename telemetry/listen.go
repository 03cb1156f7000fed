package telemetry

import (
	"context"
	"fmt"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/bus"
)

// hearTime is how late a gauge may be: what comes and goes in between is never
// written down.
const hearTime = 500 * time.Millisecond

// Subscriptions returns what the room hears, to count it.
func (r *Room) Subscriptions() []bus.Subscription {
	return bus.Together(hearTime, r.hear,
		event.JobRequested.Subject, event.AssignmentCreated.Subject, event.JobStarted.Subject, event.JobRetrying.Subject,
		event.JobCompleted.Subject, event.JobFailed.Subject, event.JobCancelled.Subject, event.JobTerminated.Subject,
		event.StepCompleted.Subject, event.StepFailed.Subject,
		event.WorkerCreated.Subject, event.WorkerTerminated.Subject, event.WorkerFailed.Subject,
	)
}

// hear counts events, and returns when what lives now is written down: an event
// that was counted and not written down comes again. A job that was lost for good
// is an alert: whoever runs the house should look.
func (r *Room) hear(ctx context.Context, events []event.Event) error {
	for _, e := range events {
		if err := r.live.hear(e); err != nil {
			return err
		}
	}
	if err := r.live.save(ctx, r.db); err != nil {
		return err
	}
	for _, e := range events {
		if e.Subject != event.JobTerminated.Subject {
			continue
		}
		d, err := event.JobTerminated.Read(e)
		if err != nil || !d.Final {
			continue // it was counted: it can be read
		}
		err = r.raise(ctx, e.Tenant, "lost:"+string(e.ID), Warning, fmt.Sprintf("the platform lost job %s: %s", d.Job, d.Message),
			map[string]string{"job_id": string(d.Job), "event_id": string(e.ID), "correlation_id": e.CorrelationID})
		if err != nil {
			return err
		}
	}
	return nil
}

// told is what any event about a job, a step or a worker may say.
type told struct {
	job     ident.Job
	worker  ident.Worker
	attempt int
	final   bool
	took    time.Duration
}

// read returns what an event says that is counted here.
func read(e event.Event) (told, error) {
	switch e.Subject {
	case event.JobRequested.Subject:
		return from(event.JobRequested, e, func(d event.JobRequest) told { return told{job: d.Job, attempt: d.Attempt} })
	case event.AssignmentCreated.Subject:
		return from(event.AssignmentCreated, e, func(d event.Assignment) told { return told{job: d.Job, attempt: d.Attempt} })
	case event.JobStarted.Subject:
		return from(event.JobStarted, e, func(d event.JobStart) told { return told{job: d.Job, attempt: d.Attempt} })
	case event.JobRetrying.Subject:
		return from(event.JobRetrying, e, func(d event.JobRetry) told { return told{job: d.Job, attempt: d.Attempt} })
	case event.JobCompleted.Subject:
		return from(event.JobCompleted, e, func(d event.JobDone) told { return told{job: d.Job, attempt: d.Attempt} })
	case event.JobFailed.Subject:
		return from(event.JobFailed, e, func(d event.JobFault) told { return told{job: d.Job, attempt: d.Attempt, final: d.Final} })
	case event.JobCancelled.Subject:
		return from(event.JobCancelled, e, func(d event.JobStop) told { return told{job: d.Job, attempt: d.Attempt} })
	case event.JobTerminated.Subject:
		return from(event.JobTerminated, e, func(d event.JobFault) told { return told{job: d.Job, attempt: d.Attempt, final: d.Final} })
	case event.StepCompleted.Subject:
		return from(event.StepCompleted, e, func(d event.StepEnd) told { return told{took: time.Duration(d.DurationMS) * time.Millisecond} })
	case event.StepFailed.Subject:
		return from(event.StepFailed, e, func(d event.StepFault) told { return told{took: time.Duration(d.DurationMS) * time.Millisecond} })
	case event.WorkerCreated.Subject:
		return from(event.WorkerCreated, e, func(d event.WorkerMade) told { return told{worker: d.Worker} })
	case event.WorkerTerminated.Subject:
		return from(event.WorkerTerminated, e, func(d event.WorkerEnd) told { return told{worker: d.Worker} })
	default:
		return from(event.WorkerFailed, e, func(d event.WorkerLoss) told { return told{worker: d.Worker} })
	}
}

func from[T any](k event.Kind[T], e event.Event, of func(T) told) (told, error) {
	d, err := k.Read(e)
	return of(d), err
}
