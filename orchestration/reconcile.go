package orchestration

import (
	"context"
	"fmt"
	"math"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

const (
	lookAtMost = 500 // due jobs at a time
	mostPause  = 5 * time.Second
	leastPause = 5 * time.Millisecond
)

// Run asks for attempts whose backoff is over, and says again what was last said
// of jobs that nobody has news of, until ctx ends.
func (r *Room) Run(ctx context.Context) error {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-r.soon:
		}
		pause := mostPause
		if next, err := r.reconcile(ctx); err != nil {
			if ctx.Err() == nil {
				r.cfg.Log.Error("jobs cannot be reconciled", "error", err)
			}
		} else if !next.IsZero() {
			pause = min(max(next.Sub(r.cfg.Now()), leastPause), mostPause)
		}
		t.Reset(pause)
	}
}

// reconcile looks after the jobs that are due, and returns when the next one is.
func (r *Room) reconcile(ctx context.Context) (time.Time, error) {
	type name struct {
		t  ident.Tenant
		id ident.Job
	}
	now := r.cfg.Now()
	rows, err := r.db.Query(ctx, `SELECT tenant, id, due_ms FROM job WHERE live = 1 ORDER BY due_ms LIMIT $1`, lookAtMost)
	if err != nil {
		return time.Time{}, err
	}
	defer rows.Close()
	var (
		names []name
		next  time.Time
	)
	for rows.Next() {
		var (
			n  name
			ms int64
		)
		if err := rows.Scan(&n.t, &n.id, &ms); err != nil {
			return time.Time{}, err
		}
		if at := time.UnixMilli(ms); at.After(now) {
			next = at
			break
		}
		names = append(names, n)
	}
	if err := rows.Err(); err != nil {
		return time.Time{}, err
	}
	rows.Close()
	if len(names) == lookAtMost {
		next = now
	}
	// All at once: they share commits.
	errs := make(chan error, len(names))
	for _, n := range names {
		go func() {
			errs <- r.change(ctx, n.t, n.id, func(j *job, now time.Time) ([]event.Event, error) {
				return j.refresh(now, r.patience(now))
			})
		}()
	}
	for range names {
		if e := <-errs; e != nil {
			err = e
		}
	}
	return next, err
}

// late says that the job ran too long, in the words of execution.
func (j *job) late() string {
	return fmt.Sprintf("the job ran longer than its timeout of %v", time.Duration(j.Spec.TimeoutMS)*time.Millisecond)
}

// patience is for how long past its deadline a running job is waited for: what ended while
// the platform was away has yet to be told.
func (r *Room) patience(now time.Time) time.Duration {
	if now.Sub(r.alive.Since) < overdue {
		return math.MaxInt64
	}
	return overdue + r.alive.Away
}

// refresh does what is due for a live job.
func (j *job) refresh(now time.Time, patience time.Duration) ([]event.Event, error) {
	switch {
	case j.over() || j.Due.After(now):
		return nil, errNothing
	case j.Waits || j.Occupied != 0 && j.State == Pending:
		return nil, nil // for others; look again later
	case j.State == Pending && !j.RetryAt.IsZero():
		if j.RetryAt.After(now) {
			return nil, nil
		}
		return []event.Event{j.request(now)}, nil
	case j.State == Running && now.Sub(j.Deadline) > patience:
		return j.fail(now, Failure{Code: "job_timeout", Message: j.late(), Retryable: true}, spec.NewResult("", -1), backoff(j.Spec.RetryBackoffMS))
	}
	j.Round++
	if j.State == Running {
		return []event.Event{j.begin(now)}, nil
	}
	return []event.Event{j.request(now)}, nil
}
