package scheduling

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/sqldb"
)

// Subscriptions is everything scheduling listens to.
func (r *Room) Subscriptions() []bus.Subscription {
	return []bus.Subscription{
		bus.On(event.JobRequested, r.jobRequested),
		bus.On(event.RunStarted, r.runStarted),
		bus.On(event.RunEnded, r.runEnded),
		bus.On(event.WorkerCreated, func(ctx context.Context, e event.Event, d event.WorkerMade) error {
			return r.tell(ctx, func(t *turn) error { t.started(e.Tenant, d.Assignment); return nil })
		}),
		bus.On(event.JobRetrying, func(ctx context.Context, e event.Event, d event.JobRetry) error {
			next := e.Time.Add(time.Duration(d.After) * time.Millisecond)
			why := fmt.Sprintf("attempt %d came to nothing: %s; attempt %d is asked for at %s", d.Attempt, clip(d.Reason), d.Attempt+1, next.UTC().Format(time.RFC3339))
			return r.attemptOver(ctx, e, d.Job, d.Attempt, ending{reason: why, next: true})
		}),
		bus.On(event.JobCompleted, func(ctx context.Context, e event.Event, d event.JobDone) error {
			return r.attemptOver(ctx, e, d.Job, d.Attempt, ending{reason: "the job has ended", keep: true})
		}),
		bus.On(event.JobFailed, func(ctx context.Context, e event.Event, d event.JobFault) error {
			return r.attemptOver(ctx, e, d.Job, d.Attempt, ending{reason: "the job has failed"})
		}),
		bus.On(event.JobCancelled, func(ctx context.Context, e event.Event, d event.JobStop) error {
			return r.attemptOver(ctx, e, d.Job, d.Attempt, ending{reason: "the job was called off", revoke: true})
		}),
		bus.On(event.JobTerminated, func(ctx context.Context, e event.Event, d event.JobFault) error {
			return r.attemptOver(ctx, e, d.Job, d.Attempt, ending{reason: "the attempt was lost"})
		}),
		bus.On(event.WorkerTerminated, func(ctx context.Context, e event.Event, d event.WorkerEnd) error {
			return r.tell(ctx, func(t *turn) error { return t.free(e.Tenant, d.Assignment, "its worker has ended") })
		}),
		bus.On(event.WorkerFailed, func(ctx context.Context, e event.Event, d event.WorkerLoss) error {
			return r.tell(ctx, func(t *turn) error { return t.free(e.Tenant, d.Assignment, "its worker failed: "+clip(d.Reason)) })
		}),
	}
}

func (r *Room) jobRequested(ctx context.Context, e event.Event, d event.JobRequest) error {
	switch {
	case e.Tenant == "" || d.Tenant != "" && d.Tenant != e.Tenant:
		return fmt.Errorf("event %s: whose job this is cannot be told", e.ID)
	case !ident.Valid(string(d.Job)) || d.Attempt < 1:
		return fmt.Errorf("event %s: names no attempt of a job", e.ID)
	case !d.Spec.Resources.Holds(spec.Quota{}):
		return fmt.Errorf("event %s: asks for less than nothing", e.ID)
	}
	asked := fromRequest(e, d)
	return r.tell(ctx, func(t *turn) error {
		p := asked
		return t.request(&p)
	})
}

// tell asks the desk on behalf of an event. What is in the way for a while only
// (a full queue, a full or slow disk, the end of the process) makes the event come
// again: a lost end of a worker would be lost capacity.
func (r *Room) tell(ctx context.Context, do func(*turn) error) error {
	err := r.ask(ctx, do)
	for _, passing := range []error{errQueueFull, sqldb.ErrFull, sqldb.ErrClosed, context.DeadlineExceeded} {
		if errors.Is(err, passing) {
			return fmt.Errorf("%w: %w", bus.ErrLater, err)
		}
	}
	return err
}

// request puts p into the queue, unless it, or a later attempt, was there before.
func (t *turn) request(p *place) error {
	r := t.room
	if n, err := t.newest(p.key()); err != nil || n >= p.N {
		return err
	}
	if r.snap.Queued()-r.snap.QueuedByHand() >= r.cfg.MaxQueue { // what was asked for by hand keeps no job out
		return errQueueFull
	}
	t.end(p.key(), p.N-1, ending{reason: "a later attempt has begun"})
	t.enqueue(p)
	return nil
}

func (t *turn) enqueue(p *place) {
	r := t.room
	r.seq++
	p.Seq = r.seq
	r.remember(p)
	r.snap.Add(&p.Waiting)
	t.added = append(t.added, p)
	t.touch(p)
}

// newest returns the greatest attempt of a job that is known, or -1.
func (t *turn) newest(k jobKey) (int, error) {
	n := -1
	for _, p := range t.room.jobs[k] {
		n = max(n, p.N)
	}
	stored, err := newestAttempt(t.tx, k)
	return max(n, stored), err
}

// An ending is how an attempt ended, as far as its place is concerned.
type ending struct {
	reason string
	revoke bool // also the place of an attempt whose worker was made; one asked for by hand always
	keep   bool // the place, whatever is known of its worker
	next   bool // another attempt follows, and until then the reason is what people are told
}

func (r *Room) attemptOver(ctx context.Context, e event.Event, job ident.Job, attempt int, how ending) error {
	if e.Tenant == "" || !ident.Valid(string(job)) || attempt < 0 {
		return fmt.Errorf("event %s: names no attempt of a job", e.ID)
	}
	return r.tell(ctx, func(t *turn) error {
		err := t.over(jobKey{e.Tenant, job}, attempt, how)
		if err == nil && how.next {
			err = t.note(Attempt{e.Tenant, job, attempt}, how.reason)
		}
		return err
	})
}

// over ends the attempts of a job up to the one that is over. An end that comes
// before its beginning is remembered, so that the beginning is dropped.
func (t *turn) over(k jobKey, attempt int, how ending) error {
	if t.end(k, attempt, how) {
		return nil
	}
	if n, err := t.newest(k); err != nil || n >= attempt || attempt == 0 {
		return err
	}
	p := &place{Waiting: Waiting{Attempt: Attempt{k.tenant, k.job, attempt}}, state: Revoked, reason: how.reason, ended: kept(t.now)}
	p.id = assignmentID(p.Attempt)
	t.touch(p)
	t.room.remember(p) // until it is saved
	return nil
}

// end takes attempts of a job out of the queue and takes back what places they
// need no more. It says whether the last one of them was among those that live.
func (t *turn) end(k jobKey, upTo int, how ending) (known bool) {
	for _, p := range t.room.jobs[k] {
		known = known || p.N >= upTo
		if p.N > upTo || !p.ended.IsZero() {
			continue
		}
		switch {
		case p.waits():
			t.room.snap.Remove(&p.Waiting)
			p.state, p.reason, p.ended = Revoked, how.reason, kept(t.now)
			t.touch(p)
		case p.state == Created && !how.keep && (how.revoke || !p.started || p.N == 0):
			p.state, p.reason, p.round, p.said = Revoked, how.reason, 0, t.now
			t.touch(p)
			t.emit(event.AssignmentRevoked.Event(p.about(t.now), p.rejection()))
		}
	}
	return known
}

// note has the place of an attempt say why its job waits without one.
func (t *turn) note(a Attempt, why string) error {
	p, err := t.find(jobKey{a.Tenant, a.Job})
	if errors.Is(err, errNoPlace) || err == nil && p.N != a.N {
		return nil
	}
	if err != nil {
		return err
	}
	p.reason = why
	t.touch(p)
	return nil
}

// started notes that a worker was made. It is written down only when it matters
// for long: see reconcile.
func (t *turn) started(tenant ident.Tenant, id ident.Assignment) {
	if p := t.room.byID[id]; p != nil && p.Tenant == tenant {
		p.started = true
	}
}

// free returns the capacity of an assignment, once. Workers that no assignment
// asked for, and assignments whose worker has ended before, are none of ours.
func (t *turn) free(tenant ident.Tenant, id ident.Assignment, reason string) error {
	r := t.room
	p := r.byID[id]
	if p == nil || p.Tenant != tenant || p.node == "" || !p.ended.IsZero() {
		return nil
	}
	p.ended = kept(t.now)
	if p.reason == "" {
		p.reason = reason
	}
	t.touch(p)
	l := r.nodes[p.node]
	if l == nil {
		return nil
	}
	r.snap.Give(p.node, p.Ask.Resources)
	l.places--
	t.changed(p.node)
	if n, _, _ := r.snap.Node(p.node); n.Retired && l.places == 0 {
		return t.drop(p.node)
	}
	return nil
}

// clip bounds a text that others wrote.
func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 512)], "") }
