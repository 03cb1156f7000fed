package scheduling

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
)

type explanation struct {
	Job      ident.Job   `json:"job_id"`
	Attempt  int         `json:"attempt"`
	State    State       `json:"state" enum:"PENDING,CREATED,REJECTED,REVOKED" doc:"Of the job's assignment, its place on a node; the job's own state is another"`
	Position int         `json:"position" doc:"In the queue, from 1; 0 for a job that does not wait"`
	Queued   int         `json:"queue_length"`
	Node     ident.Node  `json:"node_id,omitempty"`
	Needs    []ident.Job `json:"needs,omitempty" doc:"Jobs of its run that have to end well before it asks for a place"`
	Reasons  []Reason    `json:"reasons" nullable:"false" doc:"Each node's, while the job waits"`
	Text     string      `json:"text" doc:"All of it in a sentence or two"`
}

func (h handlers) explain(ctx context.Context, in *struct {
	ID ident.Job `path:"id" maxLength:"128"`
}) (*struct{ Body explanation }, error) {
	who := authz.From(ctx)
	k := jobKey{who.Tenant, in.ID}
	if err := h.gate.Pass(ctx, "Job::read", authz.Resource{Type: "Job", ID: string(in.ID), Tenant: who.Tenant}); err != nil {
		return nil, err
	}
	need, err := h.room.heardOf(ctx, k)
	if err != nil {
		return nil, answered(err)
	}
	p, err := h.room.find(ctx, k)
	if errors.Is(err, errNoPlace) {
		out, err := h.room.explainNeed(ctx, k, need)
		return &struct{ Body explanation }{out}, err
	}
	if err != nil {
		return nil, answered(err)
	}
	unlock, err := h.room.read()
	if err != nil {
		return nil, err
	}
	defer unlock()
	return &struct{ Body explanation }{h.room.explain(p)}, nil
}

const (
	hearTime  = time.Second // in which a job that was accepted is surely heard of, unless the room is far behind
	hearEvery = 20 * time.Millisecond
)

// heardOf waits until a job is known: it is a moment after it was accepted. It returns
// what one needs that has not asked for a place.
func (r *Room) heardOf(ctx context.Context, k jobKey) (n need, err error) {
	late := time.NewTimer(hearTime)
	defer late.Stop()
	t := time.NewTicker(hearEvery)
	defer t.Stop()
	for {
		if _, err = r.find(ctx, k); errors.Is(err, errNoPlace) {
			n, err = r.needOf(ctx, k)
		}
		if !errors.Is(err, errNoPlace) {
			return n, err
		}
		select {
		case <-t.C:
		case <-late.C:
			return n, err
		case <-ctx.Done():
			return n, ctx.Err()
		}
	}
}

// find returns a copy of the last attempt of a job that is known.
func (r *Room) find(ctx context.Context, k jobKey) (*place, error) {
	unlock, err := r.read()
	if err != nil {
		return nil, err
	}
	p := r.newestLive(k)
	if p != nil {
		c := *p
		p = &c
	}
	unlock()
	return later(p, r.db.QueryRow(ctx, newestPlace, string(k.tenant), string(k.job)))
}

// find is the same within a turn; what it returns is not a copy if it lives.
func (t *turn) find(k jobKey) (*place, error) {
	return later(t.room.newestLive(k), t.tx.QueryRow(newestPlace, string(k.tenant), string(k.job)))
}

func (r *Room) newestLive(k jobKey) (p *place) {
	for _, q := range r.jobs[k] {
		if p == nil || q.N > p.N {
			p = q
		}
	}
	return p
}

// later returns live, or what is stored if that is a later attempt.
func later(live *place, row scanner) (*place, error) {
	stored, err := scanPlace(row)
	switch {
	case errors.Is(err, sql.ErrNoRows) && live == nil:
		return nil, errNoPlace
	case errors.Is(err, sql.ErrNoRows):
		return live, nil
	case err != nil:
		return nil, err
	case live == nil || stored.N > live.N:
		return stored, nil
	}
	return live, nil
}

// explain tells how p stands; p is a copy, or from the database.
func (r *Room) explain(p *place) explanation {
	out := explanation{Job: p.Job, Attempt: p.N, State: p.state, Node: p.node, Reasons: []Reason{}, Queued: r.snap.Queued()}
	for _, live := range r.jobs[p.key()] {
		if live.N == p.N {
			p = live
		}
	}
	since := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch ahead, waits := r.snap.Position(&p.Waiting); {
	case waits:
		out.Position = ahead + 1
		out.Reasons = Explain(r.snap, &p.Waiting)
		out.Text = fmt.Sprintf("waits since %s, number %d of %d in the queue: ", since(time.Unix(0, p.Since)), out.Position, out.Queued)
		if p.state == Rejected {
			out.Text += p.reason + "; it stays in the queue until there is a node that can"
		} else {
			out.Text += summary(out.Reasons)
		}
	case p.state == Created && p.ended.IsZero():
		out.Text = fmt.Sprintf("on node %s since %s", p.node, since(p.placed))
	case p.state == Revoked && p.node != "" && p.ended.IsZero():
		out.Text = fmt.Sprintf("its place on node %s was taken back: %s; the node has the capacity back when the worker has ended", p.node, p.reason)
	case p.node != "":
		out.Text = fmt.Sprintf("was on node %s from %s to %s: %s", p.node, since(p.placed), since(p.ended), p.reason)
	case p.Since == 0:
		out.Text = fmt.Sprintf("ended at %s, before it asked for a place: %s", since(p.ended), p.reason)
	default:
		out.Text = fmt.Sprintf("left the queue at %s without a place: %s", since(p.ended), p.reason)
	}
	out.State, out.Node = p.state, p.node
	return out
}

// summary says the reasons in one sentence, equal ones once.
func summary(reasons []Reason) string {
	const most = 3
	first := map[string]ident.Node{}
	same := map[string]int{}
	var order []string
	for _, r := range reasons {
		if same[r.Reason]++; same[r.Reason] == 1 {
			first[r.Reason] = r.Node
			order = append(order, r.Reason)
		}
	}
	var parts []string
	told := 0
	for _, why := range order[:min(len(order), most)] {
		who := string(first[why])
		if n := same[why] - 1; n > 0 {
			who += " and " + count(n, "other")
		}
		told += same[why]
		parts = append(parts, who+": "+why)
	}
	if rest := len(reasons) - told; rest > 0 {
		parts = append(parts, count(rest, "more node")+" for other reasons")
	}
	return strings.Join(parts, "; ")
}
