package console

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/httpapi"
)

// Routes registers the operations of the console.
func (r *Room) Routes(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "list-ui-jobs", Method: http.MethodGet, Path: "/ui/jobs", Tags: []string{"console"},
		Summary:     "Jobs as the console shows them",
		Description: "The newest first. What has just happened is here a moment later than in GET /jobs.",
	}, r.listJobs)
	r.routeEvents(api)
}

type jobsIn struct {
	httpapi.Page
	State    string         `query:"state" enum:"PENDING,SCHEDULED,RUNNING,SUCCEEDED,FAILED,CANCELLED,TERMINATED" doc:"Only jobs in this state"`
	Pipeline ident.Pipeline `query:"pipeline_id" maxLength:"128" doc:"Only jobs of this pipeline"`
	Run      ident.Run      `query:"run_id" maxLength:"128" doc:"Only jobs of this run"`
	Q        string         `query:"q" maxLength:"128" doc:"Only jobs whose name, id, pipeline or run has this text in it"`
}

type jobsOut struct {
	Body struct {
		Items []jobBody `json:"items" nullable:"false"`
		Next  string    `json:"next_cursor"`
	}
}

type jobBody struct {
	ID         ident.Job      `json:"job_id"`
	Name       string         `json:"name" doc:"Within its run; the id of a job of no run"`
	Pipeline   ident.Pipeline `json:"pipeline_id,omitempty"`
	Run        ident.Run      `json:"run_id,omitempty"`
	State      string         `json:"state" enum:"PENDING,SCHEDULED,RUNNING,SUCCEEDED,FAILED,CANCELLED,TERMINATED"`
	Class      string         `json:"state_class" enum:"waiting,active,success,danger,muted,lost" doc:"Which colour the state has; lost by the platform is not failed by the user"`
	Attempts   int            `json:"attempts" doc:"The number of the current attempt, from 1"`
	Created    time.Time      `json:"created_at"`
	Started    *time.Time     `json:"started_at,omitempty" doc:"Of the current attempt"`
	Finished   *time.Time     `json:"finished_at,omitempty"`
	DurationMS int64          `json:"duration_ms" doc:"Of the current attempt, so far or in all"`
	Step       *stepBody      `json:"step,omitempty" doc:"The one that runs, or ran last"`
	Node       ident.Node     `json:"node_id,omitempty"`
	Worker     ident.Worker   `json:"worker_id,omitempty"`
	Failure    *failure       `json:"failure,omitempty" doc:"Of the last attempt that ended badly"`
}

type stepBody struct {
	Name  string `json:"name"`
	Index int    `json:"index" doc:"From 0"`
	Count int    `json:"count" doc:"Steps of the job"`
}

// classes are the colours of the states.
var classes = map[string]string{
	pending: "waiting", scheduled: "waiting", running: "active", succeeded: "success",
	failed: "danger", cancelled: "muted", terminated: "lost",
}

func (j job) body(now time.Time) jobBody {
	b := jobBody{
		ID: j.id, Name: first(j.name, string(j.id)), Pipeline: j.pipeline, Run: j.run, State: j.state, Class: classes[j.state],
		Attempts: j.attempt, Created: j.created.UTC(), Node: j.node, Worker: j.worker,
	}
	if !j.started.IsZero() {
		b.Started = &j.started
		end := now
		if !j.finished.IsZero() {
			end = j.finished
		}
		b.DurationMS = max(0, end.Sub(j.started).Milliseconds())
	}
	if !j.finished.IsZero() {
		b.Finished = &j.finished
	}
	if j.step >= 0 {
		b.Step = &stepBody{Index: j.step, Count: max(len(j.steps), j.step+1), Name: fmt.Sprintf("step-%d", j.step+1)}
		if j.step < len(j.steps) {
			b.Step.Name = j.steps[j.step]
		}
	}
	if j.failure != (failure{}) {
		b.Failure = &j.failure
	}
	return b
}

func (r *Room) listJobs(ctx context.Context, in *jobsIn) (*jobsOut, error) {
	from, err := readCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	t := authz.From(ctx).Tenant
	if err := r.gate.Pass(ctx, "Job::read", authz.Resource{Type: "Job", ID: "*", Tenant: t}); err != nil {
		return nil, err
	}
	query, args := in.query(t, from)
	rows, err := r.db.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	defer rows.Close()
	out := &jobsOut{}
	out.Body.Items = []jobBody{}
	now := r.cfg.Now().UTC()
	var last job
	for rows.Next() {
		if len(out.Body.Items) == in.Limit {
			out.Body.Next = writeCursor(last)
			break
		}
		if last, err = scan(rows); err != nil {
			return nil, fmt.Errorf("console: %w", err)
		}
		out.Body.Items = append(out.Body.Items, last.body(now))
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	return out, nil
}

// query writes the SELECT that answers in, from a place on.
func (in *jobsIn) query(t ident.Tenant, from cursor) (string, []any) {
	args := []any{string(t)}
	where := []string{"tenant = $1"}
	and := func(clause string, values ...any) {
		for _, v := range values {
			args = append(args, v)
			clause = strings.Replace(clause, "?", fmt.Sprintf("$%d", len(args)), 1)
		}
		where = append(where, clause)
	}
	if in.State != "" {
		and("state = ?", in.State)
		switch class(in.State) { // lets SQLite walk the index of these alone
		case 0:
			and("class = 0")
		case 2:
			and("class = 2")
		}
	}
	if in.Pipeline != "" {
		and("pipeline = ? AND pipeline <> ''", string(in.Pipeline))
	}
	if in.Run != "" {
		and("run = ? AND run <> ''", string(in.Run))
	}
	if in.Q != "" {
		like := "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(in.Q) + "%"
		and(`(name LIKE ? ESCAPE '\' OR id LIKE ? ESCAPE '\' OR pipeline LIKE ? ESCAPE '\' OR run LIKE ? ESCAPE '\')`, like, like, like, like)
	}
	if from.id != "" {
		and("(created_ns, id) < (?, ?)", from.created, string(from.id))
	}
	args = append(args, in.Limit+1)
	return `SELECT ` + columns + ` FROM job WHERE ` + strings.Join(where, " AND ") +
		fmt.Sprintf(` ORDER BY created_ns DESC, id DESC LIMIT $%d`, len(args)), args
}

// A cursor is the last job of a page.
type cursor struct {
	created int64
	id      ident.Job
}

func writeCursor(j job) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d/%s", nano(j.created), j.id))
}

func readCursor(s string) (c cursor, err error) {
	if s == "" {
		return c, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		_, err = fmt.Sscanf(string(b), "%d/%s", &c.created, &c.id)
	}
	if err != nil || !ident.Valid(string(c.id)) {
		return cursor{}, httpapi.BadCursor()
	}
	return c, nil
}
