package orchestration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/sqldb"
)

type (
	pipelineOrder struct {
		ID   ident.Pipeline `json:"pipeline_id,omitempty" maxLength:"128" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$" doc:"Made by the platform unless given"`
		Spec spec.Pipeline  `json:"spec"`
	}
	pipelineVersion struct {
		Spec spec.Pipeline `json:"spec"`
	}
	pipelineReply struct {
		Status   int
		Location string `header:"Location"`
		Body     Pipeline
	}
	pipelinePage struct {
		Body struct {
			Items []Pipeline `json:"items" nullable:"false"`
			Next  string     `json:"next_cursor,omitempty"`
		}
	}
)

func (r *Room) pipelineRoutes(api huma.API) {
	create := operation(http.MethodPost, "/pipelines", "create-pipeline", "Create a pipeline", "pipelines")
	create.DefaultStatus = http.StatusCreated
	huma.Register(api, httpapi.Again(create), func(ctx context.Context, in *struct{ Body pipelineOrder }) (*pipelineReply, error) {
		return r.createPipeline(ctx, in.Body)
	})
	huma.Register(api, operation(http.MethodGet, "/pipelines", "list-pipelines", "Pipelines, newest first", "pipelines"), r.listPipelines)
	huma.Register(api, operation(http.MethodGet, "/pipelines/{id}", "get-pipeline", "A pipeline and its state", "pipelines"), func(ctx context.Context, in *struct {
		PathID
		Version int `query:"version" minimum:"0" doc:"The newest unless given"`
	}) (*pipelineReply, error) {
		p, err := r.readPipeline(ctx, "Pipeline::read", in.ID, in.Version)
		if err != nil {
			return nil, err
		}
		if err := r.gate.Pass(ctx, "Pipeline::read", pipelineResource(p)); err != nil {
			return nil, err
		}
		return &pipelineReply{Status: http.StatusOK, Body: p.Pipeline}, nil
	})
	huma.Register(api, operation(http.MethodPut, "/pipelines/{id}", "update-pipeline", "Make a new version of a pipeline", "pipelines"), func(ctx context.Context, in *struct {
		PathID
		Body pipelineVersion
	}) (*pipelineReply, error) {
		return r.updatePipeline(ctx, in.ID, in.Body.Spec)
	})
}

func pipelineResource(p *pipeline) authz.Resource {
	return authz.Resource{Type: "Pipeline", ID: string(p.ID), Tenant: p.Tenant, Attrs: map[string]any{"owner": p.Owner, "environment": ""}}
}

// Resolve says what is wrong with an order, besides what its schema knows.
func (o *pipelineOrder) Resolve(huma.Context) []error {
	out := httpapi.Faults("body.spec", o.Spec.Validate())
	if o.ID != "" && !ident.Valid(string(o.ID)) {
		out = append(out, httpapi.Faults("body", []spec.Fault{{Path: "pipeline_id", Message: "want 1 to 128 letters, digits, '.', '_' or '-', beginning with a letter or digit"}})...)
	}
	return out
}

// Resolve says what is wrong with a new version, besides what its schema knows.
func (v *pipelineVersion) Resolve(huma.Context) []error {
	return httpapi.Faults("body.spec", v.Spec.Validate())
}

func insertPipeline(tx *sqldb.Tx, p *pipeline, hash []byte) error {
	body, err := encode(p)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO pipeline (tenant, id, version, latest, name, owner, created_ms, hash, spec) VALUES ($1, $2, $3, 1, $4, $5, $6, $7, $8)`,
		string(p.Tenant), string(p.ID), p.Version, p.Name, p.Owner, p.Created.UnixMilli(), hash, body)
	return err
}

func latestPipeline(tx *sqldb.Tx, t ident.Tenant, id ident.Pipeline) (p *pipeline, hash []byte, err error) {
	p = &pipeline{}
	if err := decode(tx.QueryRow(`SELECT spec FROM pipeline WHERE tenant = $1 AND id = $2 AND latest = 1`, string(t), string(id)), p); err != nil {
		return nil, nil, err
	}
	err = tx.QueryRow(`SELECT hash FROM pipeline WHERE tenant = $1 AND id = $2 AND version = $3`, string(t), string(id), p.Version).Scan(&hash)
	return p, hash, err
}

// readPipeline returns a version of a pipeline, the newest for 0, with the state of
// its newest run, for action. Whether the caller may is asked here only if there is none.
func (r *Room) readPipeline(ctx context.Context, action, id string, version int) (*pipeline, error) {
	t := authz.From(ctx).Tenant
	p := &pipeline{}
	err := decode(r.db.QueryRow(ctx, `SELECT spec FROM pipeline WHERE tenant = $1 AND id = $2 AND (latest = 1 AND $3 = 0 OR version = $3)`, string(t), id, version), p)
	if errors.Is(err, errAbsent) {
		return nil, r.gate.Absent(ctx, action, pipelineResource(&pipeline{Pipeline{ID: ident.Pipeline(id), Tenant: t}}), "pipeline")
	}
	if err != nil {
		return nil, err
	}
	p.State, p.LastRun, err = r.lastRun(ctx, t, p.ID)
	return p, err
}

// newest is the newest run of pipeline p, as id and state in one value; empty
// if there is none.
const newest = `COALESCE((SELECT id || ' ' || state FROM run WHERE run.tenant = p.tenant AND run.pipeline = p.id ORDER BY run.created_ms DESC, run.id DESC LIMIT 1), '')`

func (r *Room) lastRun(ctx context.Context, t ident.Tenant, id ident.Pipeline) (State, ident.Run, error) {
	var last string
	err := r.db.QueryRow(ctx, `SELECT `+newest+` FROM (SELECT $1 AS tenant, $2 AS id) AS p`, string(t), string(id)).Scan(&last)
	run, state, _ := strings.Cut(last, " ")
	return State(state), ident.Run(run), err
}

// createPipeline makes the first version; the same again answers the newest.
func (r *Room) createPipeline(ctx context.Context, o pipelineOrder) (*pipelineReply, error) {
	who := authz.From(ctx)
	p := &pipeline{Pipeline{ID: o.ID, Tenant: who.Tenant, Version: 1, Name: o.Spec.Name, Spec: o.Spec, Owner: who.Sub, Created: r.cfg.Now().UTC()}}
	if p.ID == "" {
		p.ID = ident.Pipeline(r.cfg.IDs("pl"))
	}
	answer, err := r.gate.Ask(ctx, "Pipeline::create", pipelineResource(p), nil)
	if err != nil {
		return nil, err
	}
	hash, fresh := fingerprint(o.Spec), false
	err = r.db.Write(ctx, func(tx *sqldb.Tx) error {
		old, had, err := latestPipeline(tx, who.Tenant, p.ID)
		switch {
		case errors.Is(err, errAbsent):
			fresh = true
			if err := insertPipeline(tx, p, hash); err != nil {
				return err
			}
		case err != nil:
			return err
		case !bytes.Equal(had, hash):
			return httpapi.Conflict("another pipeline has this pipeline_id; PUT /pipelines/{id} makes a new version of it")
		default:
			p, fresh = old, false
		}
		return tx.Emit(answer.Event)
	})
	if err != nil {
		return nil, err
	}
	if p.State, p.LastRun, err = r.lastRun(ctx, who.Tenant, p.ID); err != nil {
		return nil, err
	}
	out := &pipelineReply{Status: http.StatusOK, Location: "/pipelines/" + string(p.ID), Body: p.Pipeline}
	if fresh {
		out.Status = http.StatusCreated
	}
	return out, nil
}

// updatePipeline makes a new version, unless the newest is the same.
func (r *Room) updatePipeline(ctx context.Context, id string, s spec.Pipeline) (*pipelineReply, error) {
	p, err := r.readPipeline(ctx, "Pipeline::update", id, 0)
	if err != nil {
		return nil, err
	}
	answer, err := r.gate.Ask(ctx, "Pipeline::update", pipelineResource(p), nil)
	if err != nil {
		return nil, err
	}
	hash := fingerprint(s)
	var out *pipeline
	err = r.db.Write(ctx, func(tx *sqldb.Tx) error {
		old, had, err := latestPipeline(tx, p.Tenant, p.ID)
		if err != nil {
			return err
		}
		if bytes.Equal(had, hash) {
			out = old
			return tx.Emit(answer.Event)
		}
		out = &pipeline{Pipeline{ID: p.ID, Tenant: p.Tenant, Version: old.Version + 1, Name: s.Name, Spec: s, Owner: old.Owner, Created: r.cfg.Now().UTC()}}
		if _, err := tx.Exec(`UPDATE pipeline SET latest = 0 WHERE tenant = $1 AND id = $2 AND version = $3`, string(p.Tenant), string(p.ID), old.Version); err != nil {
			return err
		}
		if err := insertPipeline(tx, out, hash); err != nil {
			return err
		}
		return tx.Emit(answer.Event)
	})
	if err != nil {
		return nil, err
	}
	out.State, out.LastRun = p.State, p.LastRun
	return &pipelineReply{Status: http.StatusOK, Body: out.Pipeline}, nil
}

func (r *Room) listPipelines(ctx context.Context, in *httpapi.Page) (*pipelinePage, error) {
	t := authz.From(ctx).Tenant
	if err := r.gate.Pass(ctx, "Pipeline::read", authz.Resource{Type: "Pipeline", ID: "*", Tenant: t}); err != nil {
		return nil, err
	}
	ms, id := int64(1<<62), ""
	if in.Cursor != "" {
		var err error
		if ms, id, err = cursor(in.Cursor); err != nil {
			return nil, err
		}
	}
	rows, err := r.db.Query(ctx, `SELECT spec, `+newest+` FROM pipeline AS p WHERE tenant = $1 AND latest = 1 AND (created_ms, id) < ($2, $3) ORDER BY created_ms DESC, id DESC LIMIT $4`,
		string(t), ms, id, in.Limit+1)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := &pipelinePage{}
	out.Body.Items = []Pipeline{}
	for rows.Next() {
		var (
			body []byte
			last string
			p    pipeline
		)
		if err := rows.Scan(&body, &last); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(body, &p); err != nil {
			return nil, err
		}
		run, state, _ := strings.Cut(last, " ")
		p.State, p.LastRun = State(state), ident.Run(run)
		if len(out.Body.Items) == in.Limit {
			end := out.Body.Items[in.Limit-1]
			out.Body.Next = place(end.Created.UnixMilli(), string(end.ID))
			break
		}
		out.Body.Items = append(out.Body.Items, p.Pipeline)
	}
	return out, rows.Err()
}
