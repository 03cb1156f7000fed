package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/identity"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/sqldb"
	"fragua.dev/fragua/worker/provider"
)

type (
	workerOrder struct {
		Worker   ident.Worker     `json:"worker_id,omitempty" maxLength:"128" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$" doc:"Made by the platform unless given"`
		Provider string           `json:"provider_id" maxLength:"128" doc:"process, docker, kubernetes"`
		Runtime  spec.RuntimeSpec `json:"runtime_spec"`
	}
	workerPath struct {
		ID string `path:"id" maxLength:"128"`
	}
	workerReply struct {
		Status   int
		Location string `header:"Location"`
		Body     Worker
	}
	workerPage struct {
		Body struct {
			Items []Worker `json:"items" nullable:"false"`
			Next  string   `json:"next_cursor,omitempty"`
		}
	}
)

// Routes adds the room's part of the API.
func (r *Room) Routes(api huma.API) {
	op := func(method, path, id, summary string) huma.Operation {
		return huma.Operation{Method: method, Path: path, OperationID: id, Summary: summary, Tags: []string{"workers"}}
	}
	create := op(http.MethodPost, "/workers", "create-worker", "Create a worker")
	create.DefaultStatus = http.StatusCreated
	create.Description = "For a person who wants to try something by hand: it has no place on a node, and does not count against --max-workers. There are at most " +
		strconv.Itoa(maxOwn) + " of a tenant and " + strconv.Itoa(provider.MaxByHand) + " in all; beyond them this is a 429. " +
		"Jobs get their workers by themselves. It ends when nobody has called it for five minutes, or by DELETE."
	huma.Register(api, httpapi.Again(create), r.create)
	huma.Register(api, op(http.MethodGet, "/workers", "list-workers", "Workers, by id"), r.list)
	huma.Register(api, op(http.MethodGet, "/workers/{id}", "get-worker", "A worker"), func(ctx context.Context, in *workerPath) (*workerReply, error) {
		w, err := r.visible(ctx, "Worker::read", in.ID)
		if err != nil {
			return nil, err
		}
		return &workerReply{Status: http.StatusOK, Body: w.Worker}, r.gate.Pass(ctx, "Worker::read", r.resource(w))
	})
	huma.Register(api, op(http.MethodDelete, "/workers/{id}", "terminate-worker", "Terminate a worker"), r.remove)
	logs := op(http.MethodGet, "/workers/{id}/logs", "worker-logs", "Logs of a worker")
	logs.Responses = map[string]*huma.Response{"200": {Description: "What the worker itself said", Content: map[string]*huma.MediaType{"text/plain": {}}}}
	huma.Register(api, logs, r.logs)
}

// visible returns a worker of the caller's tenant, for action. Whether the caller may
// is asked here only if there is none.
func (r *Room) visible(ctx context.Context, action, id string) (*worker, error) {
	t := authz.From(ctx).Tenant
	w, err := r.read(ctx, t, ident.Worker(id))
	if errors.Is(err, errAbsent) {
		return nil, r.gate.Absent(ctx, action, r.resource(&worker{Worker: Worker{ID: ident.Worker(id), Tenant: t}}), "worker")
	}
	return w, err
}

// create makes a worker without a job: for POST /exec, until it is deleted or
// nobody ran anything on it for as long as [lone].
func (r *Room) create(ctx context.Context, in *struct{ Body workerOrder }) (*workerReply, error) {
	o := in.Body
	p := authz.From(ctx)
	var faults []spec.Fault
	if o.Provider != r.cfg.Provider.Kind() {
		faults = append(faults, spec.Fault{Path: "provider_id", Message: "no such provider here; there is " + r.cfg.Provider.Kind()})
	}
	if len(o.Runtime.SecretRefs) > 0 {
		faults = append(faults, spec.Fault{Path: "runtime_spec.secret_refs", Message: "secrets are given to jobs alone: leave it out, or make a job with spec.secret_refs"})
	}
	if faults != nil {
		return nil, httpapi.Invalid("body", faults)
	}
	w := &worker{Worker: Worker{
		ID: o.Worker, Tenant: p.Tenant, State: Creating, Provider: o.Provider, Runtime: o.Runtime, Created: r.cfg.Now().UTC(),
	}, Correlation: httpapi.Correlation(ctx), Trace: httpapi.TraceParent(ctx)}
	if w.ID == "" {
		w.ID = ident.Worker(r.cfg.IDs("wrk"))
	}
	if len(r.cfg.Nodes) > 0 {
		w.Node = r.cfg.Nodes[0]
	}
	w.Identity = identity.Worker(w.Tenant, w.ID)
	answer, err := r.gate.Ask(ctx, "Worker::create", r.resource(w), nil)
	if err != nil {
		return nil, err
	}
	// The wish is saved first: of many identical calls one makes the worker.
	var old *worker
	err = r.db.Write(ctx, func(tx *sqldb.Tx) error {
		var err error
		if old, err = r.load(tx, w.Tenant, w.ID); err == nil {
			return tx.Emit(answer.Event)
		}
		old = nil
		if !errors.Is(err, errAbsent) {
			return err
		}
		// The provider knows workers by this name alone.
		var foreign int
		if err := tx.QueryRow(`SELECT COUNT(*) FROM worker WHERE live = 1 AND id = $1`, string(w.ID)).Scan(&foreign); err != nil {
			return err
		}
		if foreign > 0 {
			return httpapi.Conflict("another worker has this worker_id")
		}
		if err := crowded(tx, w.Tenant); err != nil {
			return err
		}
		if err := r.save(tx, w, w.Created.Add(createTime)); err != nil {
			return err
		}
		return tx.Emit(answer.Event)
	})
	if err != nil {
		return nil, err
	}
	if old != nil {
		if old.Provider != w.Provider || !sameRuntime(old.Runtime, w.Runtime) || old.Job != "" {
			return nil, httpapi.Conflict("another worker has this worker_id")
		}
		return &workerReply{Status: http.StatusOK, Body: old.Worker}, nil
	}
	defer r.making.Delete(w.ID)
	failure := r.make(ctx, w, lone)
	ctx = context.WithoutCancel(ctx)
	if errors.Is(failure, provider.ErrCapacity) {
		if err := r.unmake(ctx, w); err != nil {
			return nil, err
		}
		return nil, httpapi.TooMany(createTime, "this machine has no room for another worker now")
	}
	if err := r.settle(ctx, w, failure); err != nil {
		return nil, err
	}
	return &workerReply{Status: http.StatusCreated, Location: "/workers/" + string(w.ID), Body: w.Worker}, nil
}

// crowded refuses another worker made by hand when there are enough of them.
func crowded(tx *sqldb.Tx, t ident.Tenant) error {
	var all, own int
	err := tx.QueryRow(`SELECT COUNT(*), COALESCE(SUM(tenant = $1), 0) FROM worker WHERE live = 1 AND job = ''`, string(t)).Scan(&all, &own)
	switch {
	case err != nil:
		return err
	case own >= maxOwn:
		return httpapi.TooMany(createTime, fmt.Sprintf("you have %d workers made by hand, and may have no more: end one by DELETE /workers/{worker_id}", own))
	case all >= provider.MaxByHand:
		return httpapi.TooMany(createTime, fmt.Sprintf("there are %d workers made by hand, and may be no more: they end when nobody has called them for five minutes", all))
	}
	return nil
}

// unmake forgets the wish for a worker that there was no room for: the same call may
// come again.
func (r *Room) unmake(ctx context.Context, w *worker) error {
	return r.db.Write(ctx, func(tx *sqldb.Tx) error {
		delete(r.known, workerKey{w.Tenant, w.ID})
		_, err := tx.Exec(`DELETE FROM worker WHERE tenant = $1 AND id = $2`, string(w.Tenant), string(w.ID))
		return err
	})
}

// settle saves how a worker that someone asked for came out. One that was called off
// meanwhile is ended.
func (r *Room) settle(ctx context.Context, w *worker, failure error) error {
	calledOff := false
	err := r.db.Write(ctx, func(tx *sqldb.Tx) error {
		now := r.cfg.Now().UTC()
		old, err := r.load(tx, w.Tenant, w.ID)
		if err != nil {
			return err
		}
		calledOff = failure == nil && old.State == Terminating
		var fact event.Event
		switch {
		case failure != nil:
			fact = w.fail(now, failure.Error())
		case calledOff:
			w.State, w.Reason = old.State, old.Reason
		default:
			fact = w.ready(now)
		}
		if err := r.save(tx, w, now.Add(staleAfter)); err != nil {
			return err
		}
		return tx.Emit(fact)
	})
	if err == nil {
		err = r.born(ctx, w)
	}
	if err == nil && calledOff {
		r.terminate(w.Tenant, w.ID, grace)
	}
	return err
}

func sameRuntime(a, b spec.RuntimeSpec) bool {
	if a.Image != b.Image || a.Limits != b.Limits || len(a.Labels) != len(b.Labels) ||
		!slices.Equal(a.Tolerations, b.Tolerations) || !slices.Equal(a.SecretRefs, b.SecretRefs) {
		return false
	}
	for k, v := range a.Labels {
		if b.Labels[k] != v {
			return false
		}
	}
	return true
}

// remove ends a worker; one that has ended is answered as it is.
func (r *Room) remove(ctx context.Context, in *workerPath) (*workerReply, error) {
	w, err := r.visible(ctx, "Worker::terminate", in.ID)
	if err != nil {
		return nil, err
	}
	answer, err := r.gate.Ask(ctx, "Worker::terminate", r.resource(w), nil)
	if err != nil {
		return nil, err
	}
	asked := false
	err = r.db.Write(ctx, func(tx *sqldb.Tx) error {
		if w, err = r.load(tx, w.Tenant, w.ID); err != nil {
			return err
		}
		asked = w.State == Running
		if asked || w.State == Creating { // whoever makes it ends it
			w.State, w.Reason = Terminating, "ended by "+authz.From(ctx).Sub
			if err := r.save(tx, w, r.cfg.Now()); err != nil {
				return err
			}
		}
		return tx.Emit(answer.Event)
	})
	if err != nil {
		return nil, err
	}
	if asked {
		r.terminate(w.Tenant, w.ID, grace)
	}
	return &workerReply{Status: http.StatusOK, Body: w.Worker}, nil
}

func (r *Room) list(ctx context.Context, in *struct {
	httpapi.Page
	State string `query:"state" enum:"CREATING,RUNNING,TERMINATING,TERMINATED,FAILED"`
	All   bool   `query:"all" doc:"Those that have ended too"`
}) (*workerPage, error) {
	t := authz.From(ctx).Tenant
	if err := r.gate.Pass(ctx, "Worker::read", authz.Resource{Type: "Worker", ID: "*", Tenant: t, Attrs: map[string]any{"provider_id": r.cfg.Provider.Kind(), "namespace": "", "provider_authorized": true}}); err != nil {
		return nil, err
	}
	where := "live = 1 AND tenant || '' = $1" // the index of those that live, not the key of all
	if in.All || in.State == string(Terminated) || in.State == string(Failed) {
		where = "tenant = $1"
	}
	rows, err := r.db.Query(ctx, `SELECT body FROM worker WHERE `+where+` AND id > $2 AND ($3 = '' OR state = $3) ORDER BY id LIMIT $4`,
		string(t), in.Cursor, in.State, in.Limit+1)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := &workerPage{}
	out.Body.Items = []Worker{}
	for rows.Next() {
		w, err := decode(rows)
		if err != nil {
			return nil, err
		}
		if len(out.Body.Items) == in.Limit {
			out.Body.Next = string(out.Body.Items[in.Limit-1].ID)
			break
		}
		out.Body.Items = append(out.Body.Items, w.Worker)
	}
	return out, rows.Err()
}

func (r *Room) logs(ctx context.Context, in *workerPath) (*huma.StreamResponse, error) {
	w, err := r.visible(ctx, "Worker::logs", in.ID)
	if err != nil {
		return nil, err
	}
	if err := r.gate.Pass(ctx, "Worker::logs", r.resource(w)); err != nil {
		return nil, err
	}
	var said io.ReadCloser
	if !w.over() { // its name may be another's by now
		said, err = r.cfg.Provider.Logs(ctx, w.ID)
		if err != nil && !errors.Is(err, provider.ErrGone) {
			return nil, err
		}
	}
	return &huma.StreamResponse{Body: func(c huma.Context) {
		c.SetHeader("Content-Type", "text/plain; charset=utf-8")
		c.SetHeader("X-Content-Type-Options", "nosniff")
		if said == nil { // it has ended, and what it said went with it
			return
		}
		defer said.Close()
		io.Copy(c.BodyWriter(), said) // an error here is the reader's, who has gone
	}}, nil
}
