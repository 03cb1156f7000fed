package telemetry

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/observe"
	"fragua.dev/fragua/internal/sqldb"
)

// Bounds of what is watched.
const (
	maxLive   = 200_000             // jobs and workers that live; more are not counted
	maxGone   = 50_000              // names of the ended that are remembered
	goneFor   = 5 * time.Minute     // and for how long: copies of their events may follow
	forgotten = 14 * 24 * time.Hour // without any news a thing is taken for gone
)

// A name is of a job or a worker.
type name struct {
	kind   string // job, worker
	tenant ident.Tenant
	id     string
}

// A being is a job or a worker that lives.
type being struct {
	State   string    `json:"state"`
	Attempt int       `json:"attempt,omitempty"`
	Since   time.Time `json:"since"`          // first heard of
	Asked   time.Time `json:"asked,omitzero"` // when this attempt asked for its place
	News    time.Time `json:"news"`           // last heard of
}

// live counts the jobs and workers that live. It is held in memory, and written
// down after each batch of events.
type live struct {
	metrics *observe.Metrics
	mu      sync.Mutex
	all     map[name]being
	gone    map[name]time.Time
	count   map[string]int // jobs by state; workers as worker
	dirty   map[name]bool
	stored  map[name]bool // has a row, or may have
}

func newLive(m *observe.Metrics) *live {
	l := &live{metrics: m, all: map[name]being{}, gone: map[name]time.Time{}, count: map[string]int{}, dirty: map[name]bool{}, stored: map[name]bool{}}
	m.WatchQueue("jobs", func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.count["PENDING"]
	})
	return l
}

// put stores what is known of n now. Its caller holds mu.
func (l *live) put(n name, b being) {
	old, known := l.all[n]
	if !known && len(l.all) >= maxLive {
		return
	}
	if known {
		l.add(n, old, -1)
	}
	l.all[n] = b
	l.dirty[n] = true
	l.add(n, b, 1)
}

// drop forgets n. Its caller holds mu.
func (l *live) drop(n name, at time.Time) {
	if old, known := l.all[n]; known {
		l.add(n, old, -1)
		delete(l.all, n)
		if l.stored[n] {
			l.dirty[n] = true
		} else {
			delete(l.dirty, n)
		}
	}
	if len(l.gone) < maxGone {
		l.gone[n] = at
	}
}

func (l *live) add(n name, b being, by int) {
	if n.kind == "worker" {
		l.count["worker"] += by
		l.metrics.Workers(l.count["worker"])
		return
	}
	l.count[b.State] += by
	l.metrics.Jobs(b.State, l.count[b.State])
}

// hear takes note of an event. Early, late and repeated ones do no harm: only
// what moves an attempt on counts.
func (l *live) hear(e event.Event) error {
	d, err := read(e)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e.Subject {
	case event.StepCompleted.Subject:
		l.metrics.StepEnded("completed", d.took)
	case event.StepFailed.Subject:
		l.metrics.StepEnded("failed", d.took)
	case event.WorkerCreated.Subject, event.WorkerTerminated.Subject, event.WorkerFailed.Subject:
		l.worker(e, name{"worker", e.Tenant, string(d.worker)})
	default:
		l.job(e, name{"job", e.Tenant, string(d.job)}, d)
	}
	return nil
}

func (l *live) worker(e event.Event, n name) {
	_, known := l.all[n]
	_, over := l.gone[n]
	switch {
	case over:
	case e.Subject == event.WorkerCreated.Subject:
		if !known {
			l.put(n, being{State: "RUNNING", Since: e.Time, News: e.Time})
		}
	default:
		outcome := "terminated"
		if e.Subject == event.WorkerFailed.Subject {
			outcome = "failed"
		}
		l.metrics.WorkerEnded(outcome)
		l.drop(n, e.Time)
	}
}

func (l *live) job(e event.Event, n name, d told) {
	b, known := l.all[n]
	if _, over := l.gone[n]; over || d.attempt < b.Attempt {
		return
	}
	b.News = e.Time
	switch e.Subject {
	case event.JobRequested.Subject:
		if known && d.attempt == b.Attempt && !b.Asked.IsZero() {
			return
		}
		if !known {
			b.Since = e.Time
		}
		b.Attempt, b.State, b.Asked = d.attempt, "PENDING", e.Time
		l.put(n, b)
	case event.AssignmentCreated.Subject:
		if known && d.attempt == b.Attempt && b.State == "PENDING" && !b.Asked.IsZero() {
			b.State = "SCHEDULED"
			l.metrics.Placed(max(0, e.Time.Sub(b.Asked)))
			l.put(n, b)
		}
	case event.JobStarted.Subject:
		if known && b.State != "RUNNING" {
			b.Attempt, b.State = d.attempt, "RUNNING"
			l.put(n, b)
		}
	case event.JobRetrying.Subject:
		if known {
			l.metrics.JobRetried()
			b.Attempt, b.State, b.Asked = d.attempt+1, "PENDING", time.Time{}
			l.put(n, b)
		}
	default:
		state := ends[e.Subject]
		if state == "TERMINATED" && !d.final {
			return // JobRetrying follows
		}
		since := b.Since
		if !known {
			since = e.Time // it was called off before it was asked for
		}
		l.metrics.JobEnded(state, max(0, e.Time.Sub(since)))
		l.drop(n, e.Time)
	}
}

// ends are the events that end a job, and the states it ends in.
var ends = map[string]string{
	event.JobCompleted.Subject: "SUCCEEDED", event.JobFailed.Subject: "FAILED",
	event.JobCancelled.Subject: "CANCELLED", event.JobTerminated.Subject: "TERMINATED",
}

// sweep forgets who has ended long ago, and who was not heard of for very long.
func (l *live) sweep(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, at := range l.gone {
		if now.Sub(at) > goneFor {
			delete(l.gone, n)
		}
	}
	for n, b := range l.all {
		if now.Sub(b.News) > forgotten {
			l.drop(n, now)
		}
	}
}

func (l *live) load(ctx context.Context, db *sqldb.DB) error {
	rows, err := db.Query(ctx, `SELECT kind, tenant, id, body FROM live`)
	if err != nil {
		return err
	}
	defer rows.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for rows.Next() {
		var n name
		var body []byte
		var b being
		if err := rows.Scan(&n.kind, &n.tenant, &n.id, &body); err != nil {
			return err
		}
		if err := json.Unmarshal(body, &b); err != nil {
			return fmt.Errorf("live %s %s: %w", n.kind, n.id, err)
		}
		l.put(n, b)
		l.stored[n] = true
	}
	clear(l.dirty)
	return rows.Err()
}

// save writes down what changed since it was last called. A thing that came and
// went in between leaves no trace.
func (l *live) save(ctx context.Context, db *sqldb.DB) error {
	l.mu.Lock()
	changed := make(map[name][]byte, len(l.dirty))
	for n := range l.dirty {
		b, lives := l.all[n]
		if !lives {
			changed[n] = nil
			continue
		}
		l.stored[n] = true
		body, err := json.Marshal(b)
		if err != nil {
			l.mu.Unlock()
			return err
		}
		changed[n] = body
	}
	clear(l.dirty)
	l.mu.Unlock()
	if len(changed) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	err := db.Write(ctx, func(tx *sqldb.Tx) error {
		for n, body := range changed {
			var err error
			if body == nil {
				_, err = tx.Exec(`DELETE FROM live WHERE kind = $1 AND tenant = $2 AND id = $3`, n.kind, string(n.tenant), n.id)
			} else {
				_, err = tx.Exec(`INSERT INTO live (kind, tenant, id, body) VALUES ($1, $2, $3, $4)
					ON CONFLICT (kind, tenant, id) DO UPDATE SET body = excluded.body`, n.kind, string(n.tenant), n.id, string(body))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, body := range changed {
		if err != nil {
			l.dirty[n] = true
		} else if body == nil {
			delete(l.stored, n)
		}
	}
	return err
}
