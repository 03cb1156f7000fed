package telemetry

import (
	"context"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/bus"
)

// Subscriptions returns what the room hears, to count it.
func (r *Room) Subscriptions() []bus.Subscription {
	var out []bus.Subscription
	for _, subject := range []string{
		event.JobRequested.Subject, event.AssignmentCreated.Subject, event.JobStarted.Subject, event.JobRetrying.Subject,
		event.JobCompleted.Subject, event.JobFailed.Subject, event.JobCancelled.Subject, event.JobTerminated.Subject,
		event.StepCompleted.Subject, event.StepFailed.Subject,
		event.WorkerCreated.Subject, event.WorkerTerminated.Subject, event.WorkerFailed.Subject,
	} {
		out = append(out, bus.Subscription{Subject: subject, Handle: func(_ context.Context, e event.Event) error { return r.live.hear(e) }})
	}
	return out
}
