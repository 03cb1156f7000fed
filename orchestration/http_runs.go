package orchestration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/sqldb"
)

type (
	runReply struct {
		Status   int
		Location string `header:"Location"`
		Body     Run
	}
	runPage struct {
		Body struct {
			Items []Run  `json:"items" nullable:"false"`
			Next  string `json:"next_cursor,omitempty"`
		}
	}
)

func (r *Room) runRoutes(api huma.API) {
	create := operation(http.MethodPost, "/pipelines/{id}/runs", "run-pipeline", "Run a pipeline", "runs")
	create.DefaultStatus = http.StatusCreated
	huma.Register(api, httpapi.Again(create), func(ctx context.Context, in *struct {
		PathID
		Body *runOrder
	}) (*runReply, error) {
		o := runOrder{}
		if in.Body != nil {
			o = *in.Body
		}
		return r.createRun(ctx, in.ID, o)
	})
	huma.Register(api, operation(http.MethodGet, "/pipelines/{id}/runs", "list-runs", "Runs of a pipeline, newest first", "runs"), r.listRuns)
	huma.Register(api, operation(http.MethodGet, "/runs/{id}", "get-run", "A run and its jobs", "runs"), func(ctx context.Context, in *PathID) (*runReply, error) {
		run, err := r.readRun(ctx, "Pipeline::read", in.ID)
		if err != nil {
			return nil, err
		}
		if err := r.gate.Pass(ctx, "Pipeline::read", runResource(run)); err != nil {
			return nil, err
		}
		return r.runView(ctx, run, http.StatusOK)
	})
	huma.Register(api, operation(http.MethodPost, "/runs/{id}/cancel", "cancel-run", "Cancel what has not ended of a run", "runs"), func(ctx context.Context, in *struct {
		PathID
		Body *struct {
			Reason string `json:"reason,omitempty" maxLength:"1024"`
		}
	}) (*runReply, error) {
		reason := ""
		if in.Body != nil {
			reason = in.Body.Reason
		}
		return r.cancelRun(ctx, in.ID, reason)
	})
	huma.Register(api, operation(http.MethodPost, "/runs/{id}/retry", "retry-run", "Run again what failed, and what depends on it", "runs"), func(ctx context.Context, in *struct {
		PathID
		Body *struct {
			After int `json:"attempts,omitempty" minimum:"1" doc:"Of the run as it was seen. When it has been tried again since, it is answered as it is: so the same call may be made twice"`
		}
	}) (*runReply, error) {
		after := 0
		if in.Body != nil {
			after = in.Body.After
		}
		return r.retryRun(ctx, in.ID, after)
	})
}

func runResource(x *run) authz.Resource {
	return authz.Resource{Type: "Pipeline", ID: string(x.Pipeline), Tenant: x.Tenant, Attrs: map[string]any{"owner": x.Owner, "environment": ""}}
}

// readRun returns a run of the caller's tenant, for action. Whether the caller may is
// asked here only if there is none.
func (r *Room) readRun(ctx context.Context, action, id string) (*run, error) {
	x := &run{}
	err := decode(r.db.QueryRow(ctx, `SELECT body FROM run WHERE tenant = $1 AND id = $2`, string(authz.From(ctx).Tenant), id), x)
	if errors.Is(err, errAbsent) {
		// Runs are decided on by their pipeline, and this has none: the trail names
		// what was asked for in a way that is no pipeline's name.
		return nil, r.gate.Absent(ctx, action, runResource(&run{Run: Run{Pipeline: ident.Pipeline("run/" + id), Tenant: authz.From(ctx).Tenant}}), "run")
	}
	return x, err
}

// runView fills in how the jobs stand now, and why those that ended badly did: bodies
// are read of these alone.
func (r *Room) runView(ctx context.Context, x *run, status int) (*runReply, error) {
	rows, err := r.db.Query(ctx, `SELECT id, state, CASE WHEN state IN ('FAILED', 'CANCELLED', 'TERMINATED') THEN body END
		FROM job WHERE run = $2 AND run <> '' AND tenant || '' = $1`, string(x.Tenant), string(x.ID))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	shown := map[ident.Job]bool{} // those of earlier tries are not
	for _, m := range x.Jobs {
		shown[m.Job] = true
	}
	for _, u := range x.Undoing {
		shown[u.By] = true
	}
	states, whys := map[ident.Job]State{}, map[ident.Job]*Failure{}
	for rows.Next() {
		var (
			id   ident.Job
			s    State
			body []byte
		)
		if err := rows.Scan(&id, &s, &body); err != nil {
			return nil, err
		}
		states[id] = s
		if body == nil || !shown[id] {
			continue
		}
		var why struct {
			Failure *Failure `json:"failure"`
		}
		if err := json.Unmarshal(body, &why); err != nil {
			return nil, err
		}
		whys[id] = why.Failure
	}
	now := map[string]State{}
	for i, m := range x.Jobs {
		x.Jobs[i].State, x.Jobs[i].Failure, now[m.Name] = states[m.Job], whys[m.Job], states[m.Job]
	}
	for i, u := range x.Undoing {
		x.Undoing[i].Failure = whys[u.By]
	}
	if x.Finished == nil {
		if x.State = aggregate(now); x.State.ended() {
			x.State = Running // it is being undone, or about to end
		}
	}
	return &runReply{Status: status, Location: "/runs/" + string(x.ID), Body: x.Run}, rows.Err()
}

func (r *Room) createRun(ctx context.Context, id string, o runOrder) (*runReply, error) {
	p, err := r.readPipeline(ctx, "Pipeline::execute", id, 0)
	if err != nil {
		return nil, err
	}
	var faults []spec.Fault
	for i, name := range o.Jobs {
		if _, ok := p.Spec.Jobs[name]; !ok {
			faults = append(faults, spec.Fault{Path: fmt.Sprintf("jobs[%d]", i), Message: "the pipeline has no such job"})
		}
	}
	if faults != nil {
		return nil, httpapi.Invalid("body", faults)
	}
	if len(o.Env) == 0 { // {} and [] ask for what nothing asks for
		o.Env = nil
	}
	if len(o.Jobs) == 0 {
		o.Jobs = nil
	}
	answer, err := r.gate.Ask(ctx, "Pipeline::execute", pipelineResource(p), nil)
	if err != nil {
		return nil, err
	}
	if err := r.full(func() error {
		return decode(r.db.QueryRow(ctx, `SELECT body FROM run WHERE tenant = $1 AND id = $2`, string(p.Tenant), string(o.Run)), &run{})
	}); err != nil {
		return nil, err
	}
	x, jobs := r.newRun(ctx, p, o)
	hash, fresh := fingerprint(p.ID, o.Env, o.Jobs), false
	err = r.db.Write(ctx, func(tx *sqldb.Tx) error {
		fresh = false
		old, err := loadRun(tx, x.Tenant, x.ID)
		if err == nil {
			var had []byte
			if err := tx.QueryRow(`SELECT hash FROM run WHERE tenant = $1 AND id = $2`, string(x.Tenant), string(x.ID)).Scan(&had); err != nil {
				return err
			}
			if !bytes.Equal(had, hash) {
				return httpapi.Conflict("another run has this run_id")
			}
			x = old
			return tx.Emit(answer.Event)
		}
		if !errors.Is(err, errAbsent) {
			return err
		}
		fresh = true
		if err := r.admit(tx, len(jobs)); err != nil {
			return err
		}
		if err := insertRun(tx, x, hash); err != nil {
			return err
		}
		if err := tx.Emit(answer.Event, x.began(x.Created)); err != nil {
			return err
		}
		return r.begin(tx, jobs, x.Created)
	})
	if err != nil {
		return nil, err
	}
	if !fresh {
		return r.runView(ctx, x, http.StatusOK)
	}
	return r.runView(ctx, x, http.StatusCreated)
}

func (r *Room) listRuns(ctx context.Context, in *struct {
	PathID
	httpapi.Page
}) (*runPage, error) {
	p, err := r.readPipeline(ctx, "Pipeline::read", in.ID, 0)
	if err != nil {
		return nil, err
	}
	if err := r.gate.Pass(ctx, "Pipeline::read", pipelineResource(p)); err != nil {
		return nil, err
	}
	ms, id := int64(1<<62), ""
	if in.Cursor != "" {
		if ms, id, err = cursor(in.Cursor); err != nil {
			return nil, err
		}
	}
	rows, err := r.db.Query(ctx, `SELECT body, state FROM run WHERE tenant = $1 AND pipeline = $2 AND (created_ms, id) < ($3, $4) ORDER BY created_ms DESC, id DESC LIMIT $5`,
		string(p.Tenant), string(p.ID), ms, id, in.Limit+1)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := &runPage{}
	out.Body.Items = []Run{}
	for rows.Next() {
		var (
			body  []byte
			state State
			x     run
		)
		if err := rows.Scan(&body, &state); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(body, &x); err != nil {
			return nil, err
		}
		x.State = state
		if len(out.Body.Items) == in.Limit {
			last := out.Body.Items[in.Limit-1]
			out.Body.Next = place(last.Created.UnixMilli(), string(last.ID))
			break
		}
		out.Body.Items = append(out.Body.Items, x.Run)
	}
	return out, rows.Err()
}

// cancelRun calls off every job of a run that has not ended; jobs that undo the
// run's work go on. When there are no others it refuses.
func (r *Room) cancelRun(ctx context.Context, id, reason string) (*runReply, error) {
	x, err := r.readRun(ctx, "Pipeline::execute", id)
	if err != nil {
		return nil, err
	}
	if reason == "" {
		reason = "the run was cancelled by " + authz.From(ctx).Sub
	}
	answer, err := r.gate.Ask(ctx, "Pipeline::execute", runResource(x), nil)
	if err != nil {
		return nil, err
	}
	watched := map[ident.Job]<-chan struct{}{}
	for _, m := range x.Jobs {
		gone, forget := r.leave.watch(x.Tenant, m.Job)
		defer forget()
		watched[m.Job] = gone
	}
	ended, ran := 0, []<-chan struct{}(nil)
	err = r.db.Write(ctx, func(tx *sqldb.Tx) error {
		ended, ran = 0, nil
		now := r.cfg.Now().UTC()
		if x, err = loadRun(tx, x.Tenant, x.ID); err != nil {
			return err
		}
		if err := tx.Emit(answer.Event); err != nil {
			return err
		}
		if x.Finished != nil {
			if x.State != Cancelled {
				return httpapi.Conflict("the run has ended: " + string(x.State))
			}
			return nil
		}
		all, err := members(tx, x.Tenant, x.ID)
		if err != nil {
			return err
		}
		for _, m := range x.Jobs {
			j := all[m.Job]
			if j.over() {
				continue
			}
			if gone := watched[m.Job]; gone != nil && j.State == Running {
				ran = append(ran, gone)
			}
			facts, err := j.cancel(now, reason)
			if err != nil {
				return err
			}
			if err := r.known.save(tx, j, now); err != nil {
				return err
			}
			if err := tx.Emit(facts...); err != nil {
				return err
			}
			ended++
		}
		if ended == 0 && len(x.Undoing) > 0 {
			return httpapi.Conflict("the run is undoing its work, which goes on to its end; a job that undoes can be cancelled by itself")
		}
		e, _, err := r.advance(tx, x.Tenant, x.ID, now)
		ended += e
		if err != nil {
			return err
		}
		x, err = loadRun(tx, x.Tenant, x.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	r.live.Add(int64(-ended))
	left(ctx, ran)
	return r.runView(ctx, x, http.StatusOK)
}

// retryRun runs again what did not succeed or was undone, and what needs it, as
// new jobs of the same run, after its try of that number or, for 0, its last.
func (r *Room) retryRun(ctx context.Context, id string, after int) (*runReply, error) {
	x, err := r.readRun(ctx, "Pipeline::execute", id)
	if err != nil {
		return nil, err
	}
	answer, err := r.gate.Ask(ctx, "Pipeline::execute", runResource(x), nil)
	if err != nil {
		return nil, err
	}
	earlier := func() error {
		if after > 0 && x.Attempts > after {
			return nil
		}
		return errAbsent
	}
	if err := r.full(earlier); err != nil {
		return nil, err
	}
	err = r.db.Write(ctx, func(tx *sqldb.Tx) error {
		now := r.cfg.Now().UTC()
		var err error
		if x, err = loadRun(tx, x.Tenant, x.ID); err != nil {
			return err
		}
		if after > 0 && x.Attempts > after {
			return tx.Emit(answer.Event)
		}
		if after > x.Attempts {
			return httpapi.Conflict(fmt.Sprintf("the run is at its try %d", x.Attempts))
		}
		if x.Finished == nil {
			return httpapi.Conflict("the run has not ended")
		}
		if x.State == Succeeded {
			return httpapi.Conflict("the run has succeeded; run the pipeline to run it again")
		}
		all, err := members(tx, x.Tenant, x.ID)
		if err != nil {
			return err
		}
		x.Attempts++
		jobs, err := r.renew(tx, x, all, now)
		if err != nil {
			return err
		}
		if err := r.admit(tx, len(jobs)); err != nil {
			return err
		}
		x.State, x.Finished, x.Undoing = Pending, nil, nil
		if err := saveRun(tx, x); err != nil {
			return err
		}
		if err := tx.Emit(answer.Event, x.began(now)); err != nil {
			return err
		}
		return r.begin(tx, jobs, now)
	})
	if err != nil {
		return nil, err
	}
	return r.runView(ctx, x, http.StatusOK)
}

// renew makes new jobs for those of a run that have to run again.
func (r *Room) renew(tx *sqldb.Tx, x *run, all map[ident.Job]*job, now time.Time) ([]*job, error) {
	states, undone, kept := map[string]State{}, map[string]bool{}, map[string][]spec.Artifact{}
	for _, m := range x.Jobs {
		states[m.Name], kept[m.Name] = all[m.Job].State, all[m.Job].Spec.Artifacts
	}
	for _, u := range x.Undoing {
		undone[u.Name] = true
	}
	p := &pipeline{}
	if err := decode(tx.QueryRow(`SELECT spec FROM pipeline WHERE tenant = $1 AND id = $2 AND version = $3`, string(x.Tenant), string(x.Pipeline), x.Version), p); err != nil {
		return nil, err
	}
	again, keepers := rerun(x.Jobs, states, undone), p.Spec.Keepers()
	var out []*job
	for i, m := range x.Jobs {
		if !again[m.Name] {
			continue
		}
		old := all[m.Job]
		waits := false
		for _, need := range m.Needs {
			waits = waits || again[need]
		}
		s := old.Spec
		s.Artifacts, s.Source = p.artifacts(m.Name, x), p.source(m.Name, kept[keepers[m.Name]])
		kept[m.Name] = s.Artifacts // before those that need it: they stand behind it
		j := r.memberJob(x, m.Name, s, waits, now)
		j.RetryOf, old.RetriedBy = old.ID, j.ID
		if err := r.known.save(tx, old, now); err != nil {
			return nil, err
		}
		x.Jobs[i].Job = j.ID
		out = append(out, j)
	}
	return out, nil
}
