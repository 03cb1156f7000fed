package execution

import (
	"context"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/httpapi"
)

type (
	// tried is an execution, and the attempt that it was part of.
	tried struct {
		Execution
		Attempt int `json:"attempt" doc:"Of the job, from 1; 0 for what POST /exec ran"`
	}
	execPage struct {
		Body struct {
			Items []tried `json:"items" nullable:"false"`
			Next  string  `json:"next_cursor,omitempty"`
		}
	}
)

// list answers the executions of a job that have ended, those of earlier attempts
// too: their logs are kept.
func (r *Room) list(ctx context.Context, in *struct {
	httpapi.Page
	Job string `query:"job_id" required:"true" minLength:"1" maxLength:"128"`
}) (*execPage, error) {
	t := authz.From(ctx).Tenant
	if err := r.gate.Pass(ctx, "Job::read", r.jobResource(t, ident.Job(in.Job))); err != nil {
		return nil, err
	}
	rows, err := r.db.Query(ctx, `SELECT body FROM exec WHERE job = $2 AND tenant || '' = $1 AND id > $3 ORDER BY id LIMIT $4`, string(t), in.Job, in.Cursor, in.Limit+1)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := &execPage{}
	out.Body.Items = []tried{}
	for rows.Next() {
		x, err := decodeExec(rows)
		if err != nil {
			return nil, err
		}
		if len(out.Body.Items) == in.Limit {
			out.Body.Next = string(out.Body.Items[in.Limit-1].ID)
			break
		}
		out.Body.Items = append(out.Body.Items, tried{x.Execution, x.Attempt})
	}
	return out, rows.Err()
}
