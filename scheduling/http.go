package scheduling

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/httpapi"
)

// Routes registers the operations of scheduling.
func (r *Room) Routes(api huma.API) {
	h := handlers{r, httpapi.Gate{Decider: r.cfg.Decider, DB: r.db}}
	tags := []string{"nodes"}
	huma.Register(api, httpapi.Again(huma.Operation{
		OperationID: "schedule", Method: http.MethodPost, Path: "/schedule", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Ask for an assignment",
		Description: "Gives a job a place, or a position in the queue. The same again answers the same, with 200; another ask for the same job is a 409. " +
			"The place is held until its worker ends or DELETE /schedule/{job_id} takes it back.",
	}), h.schedule)
	huma.Register(api, huma.Operation{
		OperationID: "unschedule", Method: http.MethodDelete, Path: "/schedule/{job_id}", Tags: tags,
		Summary:     "Take back an assignment that was asked for by POST /schedule",
		Description: "The node's capacity is free again when the worker has ended.",
	}, h.unschedule)
	huma.Register(api, huma.Operation{
		OperationID: "list-nodes", Method: http.MethodGet, Path: "/nodes", Tags: tags,
		Summary: "Nodes: what they have, what is free, and what they offer",
	}, h.listNodes)
	huma.Register(api, huma.Operation{
		OperationID: "get-node", Method: http.MethodGet, Path: "/nodes/{id}", Tags: tags, Summary: "One node",
	}, h.getNode)
	huma.Register(api, huma.Operation{
		OperationID: "explain-job", Method: http.MethodGet, Path: "/jobs/{id}/explain", Tags: []string{"jobs"},
		Summary: "Why a job waits, node by node; or where it runs",
	}, h.explain)
}

type handlers struct {
	room *Room
	gate httpapi.Gate
}

type scheduleBody struct {
	Job       ident.Job      `json:"job_id" minLength:"1" maxLength:"128" doc:"Send it again to be sure"`
	Resources spec.Quota     `json:"resources" doc:"50 cpu_m and 128 memory_mb unless given"`
	Affinity  *spec.Affinity `json:"affinity,omitempty" doc:"Which nodes will do"`
}

type assignmentBody struct {
	Assignment ident.Assignment `json:"assignment_id"`
	Job        ident.Job        `json:"job_id"`
	Attempt    int              `json:"attempt" doc:"0 when it was asked for by POST /schedule"`
	Node       ident.Node       `json:"node_id,omitempty"`
	State      State            `json:"state" enum:"PENDING,CREATED,REJECTED,REVOKED"`
	Reason     string           `json:"reason,omitempty"`
	Policy     string           `json:"policy" doc:"How places are found"`
	Ended      *time.Time       `json:"ended_at,omitempty" doc:"When the node had its capacity back"`
}

type assignmentReply struct {
	Status int
	Body   assignmentBody
}

func replyWith(status int, p *place) *assignmentReply {
	b := assignmentBody{Assignment: p.id, Job: p.Job, Attempt: p.N, Node: p.node, State: p.state, Reason: p.reason, Policy: Policy}
	if !p.ended.IsZero() {
		at := p.ended
		b.Ended = &at
	}
	return &assignmentReply{status, b}
}

func (h handlers) schedule(ctx context.Context, in *struct{ Body scheduleBody }) (*assignmentReply, error) {
	if err := ident.Check("job_id", string(in.Body.Job)); err != nil {
		return nil, httpapi.Invalid("body", []spec.Fault{{Path: "job_id", Message: err.Error()}})
	}
	who := authz.From(ctx)
	asked := place{
		Waiting: Waiting{Attempt: Attempt{Tenant: who.Tenant, Job: in.Body.Job}, Order: Order{Since: h.room.cfg.Now().UnixNano()}, Ask: Ask{Resources: atLeast(in.Body.Resources)}},
		state:   Pending,
	}
	if in.Body.Affinity != nil {
		asked.Ask.Affinity = *in.Body.Affinity
	}
	asked.body = body{Affinity: asked.Ask.Affinity, Correlation: httpapi.Correlation(ctx), TraceParent: httpapi.TraceParent(ctx),
		Labels: map[string]string{"fragua.dev/job": string(asked.Job), "fragua.dev/attempt": "0"}}
	asked.id = assignmentID(asked.Attempt)

	res := authz.Resource{Type: "Node", ID: "*", Tenant: who.Tenant, Attrs: map[string]any{"zone": asked.Ask.Affinity.ByZone, "pool": asked.Ask.Affinity.ByPool}}
	answer, err := h.gate.Ask(ctx, "Node::schedule", res, map[string]any{
		"resources_available": true, "zone": asked.Ask.Affinity.ByZone, "pool": asked.Ask.Affinity.ByPool})
	if err != nil {
		return nil, err
	}
	var (
		got   *place
		fresh bool
	)
	err = h.room.ask(ctx, func(t *turn) (err error) {
		got, fresh, err = t.schedule(asked, answer.Event)
		return err
	})
	switch {
	case errors.Is(err, errQueueFull):
		return nil, httpapi.TooMany(time.Second, "the queue is full: "+strconv.Itoa(h.room.cfg.MaxQueue)+" that were asked for like this wait")
	case errors.Is(err, errDiffers):
		return nil, httpapi.Conflict("the job has asked for other resources, or another affinity, before")
	case err != nil:
		return nil, err
	}
	h.room.mu.RLock() // the plan that followed may have moved it on
	defer h.room.mu.RUnlock()
	status := http.StatusOK
	if fresh {
		status = http.StatusCreated
	}
	return replyWith(status, got), nil
}

// schedule gives asked, which nothing announced, a place in the queue, or returns
// what its job has already.
func (t *turn) schedule(asked place, granted event.Event) (p *place, fresh bool, err error) {
	t.emit(granted)
	p, err = t.find(asked.key())
	switch {
	case err == nil && p.Ask != asked.Ask:
		return nil, false, errDiffers
	case errors.Is(err, errNoPlace):
		if t.room.snap.QueuedByHand() >= t.room.cfg.MaxQueue {
			return nil, false, errQueueFull
		}
		p, fresh = &asked, true
		t.enqueue(p)
	case err != nil:
		return nil, false, err
	}
	return p, fresh, nil
}

func (h handlers) unschedule(ctx context.Context, in *struct {
	Job ident.Job `path:"job_id" maxLength:"128"`
}) (*assignmentReply, error) {
	who := authz.From(ctx)
	k := jobKey{who.Tenant, in.Job}
	answer, err := h.gate.Ask(ctx, "Node::schedule", authz.Resource{Type: "Node", ID: "*", Tenant: who.Tenant, Attrs: map[string]any{"zone": "", "pool": ""}},
		map[string]any{"resources_available": true, "zone": "", "pool": ""})
	if err != nil {
		return nil, err
	}
	var got *place
	err = h.room.ask(ctx, func(t *turn) (err error) {
		t.emit(answer.Event)
		if got, err = t.find(k); err != nil {
			return err
		}
		if got.N != 0 {
			return errDiffers
		}
		t.end(k, 0, ending{reason: "taken back by " + clip(who.Sub)})
		return nil
	})
	switch {
	case errors.Is(err, errDiffers):
		return nil, httpapi.Conflict("the job asked for its place itself: cancel the job")
	case err != nil:
		return nil, answered(err)
	}
	h.room.mu.RLock()
	defer h.room.mu.RUnlock()
	return replyWith(http.StatusOK, got), nil
}

// answered turns the room's errors into the API's.
func answered(err error) error {
	if errors.Is(err, errNoPlace) {
		return httpapi.NotFound("job")
	}
	return err
}

type nodeBody struct {
	ID          ident.Node        `json:"node_id"`
	Provider    string            `json:"provider_id" doc:"Kind of the workers it makes"`
	Zone        string            `json:"zone,omitempty"`
	Pool        string            `json:"pool,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	State       string            `json:"state" enum:"READY,RETIRING" doc:"RETIRING takes no new jobs"`
	Total       spec.Quota        `json:"total" doc:"Of the empty node"`
	Free        spec.Quota        `json:"free"`
	Offer       ident.Offer       `json:"offer_id" doc:"Another one when the total changes"`
	Assignments int               `json:"assignments" doc:"How many hold capacity"`
}

func (r *Room) nodeBody(i int) nodeBody {
	n := r.snap.nodes[i]
	b := nodeBody{ID: n.ID, Provider: n.Provider, Zone: n.Zone, Pool: n.Pool, Labels: n.Labels, State: "READY",
		Total: n.Total, Free: none(r.snap.free[i]), Offer: n.Offer, Assignments: r.nodes[n.ID].places}
	if n.Retired {
		b.State = "RETIRING"
	}
	return b
}

// mayRead asks whether the caller may look at nodes. They are the house's, and
// so everybody's who may look at all.
func (h handlers) mayRead(ctx context.Context, id string) error {
	return h.gate.Pass(ctx, "Node::read", authz.Resource{Type: "Node", ID: id, Tenant: authz.From(ctx).Tenant, Attrs: map[string]any{"zone": "", "pool": ""}})
}

func (h handlers) listNodes(ctx context.Context, page *httpapi.Page) (*struct {
	Body struct {
		Items []nodeBody `json:"items" nullable:"false"`
		Next  string     `json:"next_cursor"`
	}
}, error) {
	if err := h.mayRead(ctx, "*"); err != nil {
		return nil, err
	}
	unlock, err := h.room.read()
	if err != nil {
		return nil, err
	}
	defer unlock()
	var out struct {
		Body struct {
			Items []nodeBody `json:"items" nullable:"false"`
			Next  string     `json:"next_cursor"`
		}
	}
	s := h.room.snap
	var at []int
	for i, n := range s.nodes {
		if string(n.ID) > page.Cursor {
			at = append(at, i)
		}
	}
	slices.SortFunc(at, func(a, b int) int { return cmp.Compare(s.nodes[a].ID, s.nodes[b].ID) })
	out.Body.Items = []nodeBody{}
	for _, i := range at[:min(len(at), page.Limit)] {
		out.Body.Items = append(out.Body.Items, h.room.nodeBody(i))
	}
	if len(at) > page.Limit {
		out.Body.Next = string(out.Body.Items[page.Limit-1].ID)
	}
	return &out, nil
}

func (h handlers) getNode(ctx context.Context, in *struct {
	ID ident.Node `path:"id" maxLength:"128"`
}) (*struct{ Body nodeBody }, error) {
	if err := h.mayRead(ctx, string(in.ID)); err != nil {
		return nil, err
	}
	unlock, err := h.room.read()
	if err != nil {
		return nil, err
	}
	defer unlock()
	i, ok := h.room.snap.index[in.ID]
	if !ok {
		return nil, httpapi.NotFound("node")
	}
	return &struct{ Body nodeBody }{h.room.nodeBody(i)}, nil
}

// read locks the mirror for reading, unless it is not to be trusted.
func (r *Room) read() (unlock func(), err error) {
	r.mu.RLock()
	if r.stale {
		r.mu.RUnlock()
		return nil, httpapi.NotReady("scheduling cannot reach its database")
	}
	return r.mu.RUnlock, nil
}
