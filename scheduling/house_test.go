package scheduling

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

// A judge decides as no says, and counts.
type judge struct {
	no    func(authz.Question) string // why not
	asked atomic.Int64
}

func (j *judge) Decide(_ context.Context, q authz.Question) authz.Answer {
	id := ident.Decision(fmt.Sprint("dec_", j.asked.Add(1)))
	about := event.About{Tenant: q.Principal.Tenant, Key: string(id), Correlation: q.Correlation}
	if j.no != nil {
		if why := j.no(q); why != "" {
			return authz.Answer{DecisionID: id, Reason: why, Event: event.AuthorizationDenied.Event(about, event.Denial{Resource: q.Resource.ID, Action: q.Action, Reason: why, DecisionID: id})}
		}
	}
	return authz.Answer{Permit: true, DecisionID: id, Event: event.AuthGranted.Event(about, event.Grant{Scope: q.Action, Resource: q.Resource.ID, DecisionID: id})}
}

// A house is a room with what is around it.
type house struct {
	*Room
	t     testing.TB
	cfg   Config
	judge *judge
	hears map[string]func(context.Context, event.Event) error

	mu  sync.Mutex
	now time.Time
}

func newHouse(t testing.TB, nodes ...NodeConfig) *house {
	h := &house{t: t, judge: &judge{}, now: time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)}
	h.cfg = Config{
		Dir: t.TempDir(), Now: h.clock, IDs: ident.NewSource(h.clock), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Decider: h.judge, Principal: authz.Principal{Sub: "service:scheduling", Scopes: []string{"schedule:assign"}, Tenant: "default"}, Nodes: nodes,
	}
	h.open()
	t.Cleanup(func() { h.Close() })
	return h
}

func (h *house) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *house) pass(d time.Duration) {
	h.mu.Lock()
	h.now = h.now.Add(d)
	h.mu.Unlock()
}

func (h *house) open() {
	h.t.Helper()
	r, err := Open(context.Background(), h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Room, h.hears = r, map[string]func(context.Context, event.Event) error{}
	for _, s := range r.Subscriptions() {
		h.hears[s.Subject] = s.Handle
	}
}

func (h *house) restart(nodes ...NodeConfig) {
	h.t.Helper()
	if err := h.Close(); err != nil {
		h.t.Fatal(err)
	}
	if nodes != nil {
		h.cfg.Nodes = nodes
	}
	h.open()
	h.plan()
}

// plan has the desk take a turn, as Run does at its start.
func (h *house) plan() {
	h.t.Helper()
	if err := h.ask(context.Background(), func(*turn) error { return nil }); err != nil {
		h.t.Fatal(err)
	}
}

// hear delivers events and fails if one is refused.
func (h *house) hear(events ...event.Event) {
	h.t.Helper()
	for _, e := range events {
		if err := h.hears[e.Subject](context.Background(), e); err != nil {
			h.t.Errorf("%s: %v", e.ID, err)
		}
	}
}

// said returns all events of a kind that were ever committed, in order.
func said[T any](h *house, k event.Kind[T]) (out []T) {
	h.t.Helper()
	for _, e := range h.outbox() {
		if e.Subject == k.Subject {
			d, err := k.Read(e)
			if err != nil {
				h.t.Fatal(err)
			}
			out = append(out, d)
		}
	}
	return out
}

func (h *house) outbox() (out []event.Event) {
	h.t.Helper()
	for after := int64(0); ; {
		rows, err := h.DB().Outbox(context.Background(), after, 1000)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, r := range rows {
			out = append(out, r.Event)
			after = r.Seq
		}
		if len(rows) < 1000 {
			return out
		}
	}
}

func (h *house) about(job string, attempt int) event.About {
	return event.About{Tenant: "acme", Key: job, Twist: fmt.Sprint(attempt), Correlation: "cor_" + job, TraceParent: "00-" + job, At: h.clock()}
}

func (h *house) requested(job string, attempt int, q spec.Quota) event.Event {
	return event.JobRequested.Event(h.about(job, attempt), event.JobRequest{Job: ident.Job(job), Tenant: "acme", Attempt: attempt,
		Spec: spec.Job{Image: "golang", Resources: q, SecretRefs: []string{"TOKEN"}}, Pipeline: "pip_1", Run: "run_1"})
}

func (h *house) cancelled(job string, attempt int) event.Event {
	return event.JobCancelled.Event(h.about(job, attempt), event.JobStop{Job: ident.Job(job), Attempt: attempt, Reason: "bored"})
}

func (h *house) workerMade(a event.Assignment) event.Event {
	return event.WorkerCreated.Event(h.about(string(a.Job), a.Attempt), event.WorkerMade{Job: a.Job, Attempt: a.Attempt, Assignment: a.Assignment, Node: a.Node})
}

func (h *house) workerEnded(a event.Assignment) event.Event {
	return event.WorkerTerminated.Event(h.about(string(a.Job), a.Attempt), event.WorkerEnd{Job: a.Job, Attempt: a.Attempt, Assignment: a.Assignment})
}

func (h *house) workerLost(a event.Assignment) event.Event {
	return event.WorkerFailed.Event(h.about(string(a.Job), a.Attempt), event.WorkerLoss{Job: a.Job, Attempt: a.Attempt, Assignment: a.Assignment, Reason: "oops"})
}

// free returns what a node has left.
func (h *house) free(node string) spec.Quota {
	h.t.Helper()
	h.Room.mu.RLock()
	defer h.Room.mu.RUnlock()
	_, free, ok := h.snap.Node(ident.Node(node))
	if !ok {
		h.t.Fatalf("there is no node %s", node)
	}
	free.Workers = 0 // are looked at where they are few
	return free
}

// look calls f with the mirror at rest.
func (h *house) look(f func(*Room)) {
	h.Room.mu.RLock()
	defer h.Room.mu.RUnlock()
	f(h.Room)
}

func (h *house) queued() (n int) {
	h.look(func(r *Room) { n = r.snap.Queued() })
	return n
}

func (h *house) nodeIDs() (out []string) {
	h.look(func(r *Room) {
		for _, n := range r.snap.nodes {
			out = append(out, string(n.ID))
		}
	})
	slices.Sort(out)
	return out
}

func (h *house) tell(job string) explanation {
	h.t.Helper()
	p, err := h.find(context.Background(), jobKey{"acme", ident.Job(job)})
	if err != nil {
		h.t.Fatalf("%s: %v", job, err)
	}
	h.Room.mu.RLock()
	defer h.Room.mu.RUnlock()
	return h.Room.explain(p)
}

func node(id string, cpu int64) NodeConfig {
	return NodeConfig{ID: ident.Node(id), Provider: "process", Zone: "eu", Pool: "main", Quota: quota(cpu, cpu)}
}
