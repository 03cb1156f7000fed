package orchestration

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/sqldb"
)

type (
	// PathID is the name in a path.
	PathID struct {
		ID string `path:"id" maxLength:"128"`
	}
	jobReply struct {
		Status   int
		Location string `header:"Location"`
		Body     Job
	}
	jobPage struct {
		Body struct {
			Items []Job  `json:"items" nullable:"false"`
			Next  string `json:"next_cursor,omitempty"`
		}
	}
)

// Routes adds the room's part of the API.
func (r *Room) Routes(api huma.API) {
	r.jobRoutes(api)
	r.pipelineRoutes(api)
	r.runRoutes(api)
}

func operation(method, path, id, summary, tag string) huma.Operation {
	return huma.Operation{Method: method, Path: path, OperationID: id, Summary: summary, Tags: []string{tag}}
}

func (r *Room) jobRoutes(api huma.API) {
	create := operation(http.MethodPost, "/jobs", "create-job", "Request a job", "jobs")
	create.DefaultStatus = http.StatusCreated
	huma.Register(api, httpapi.Again(create), func(ctx context.Context, in *struct{ Body order }) (*jobReply, error) {
		j, fresh, err := r.createJob(ctx, in.Body)
		return reply(j, fresh), err
	})
	huma.Register(api, operation(http.MethodGet, "/jobs", "list-jobs", "Jobs, newest first", "jobs"), r.listJobs)
	huma.Register(api, operation(http.MethodGet, "/jobs/{id}", "get-job", "State of a job", "jobs"), func(ctx context.Context, in *PathID) (*jobReply, error) {
		j, err := r.visible(ctx, "Job::read", in.ID)
		if err != nil {
			return nil, err
		}
		return &jobReply{Status: http.StatusOK, Body: j.Job}, nil
	})
	huma.Register(api, operation(http.MethodPost, "/jobs/{id}/cancel", "cancel-job", "Cancel a job", "jobs"), func(ctx context.Context, in *struct {
		PathID
		Body *struct {
			Reason string `json:"reason,omitempty" maxLength:"1024"`
		}
	}) (*jobReply, error) {
		reason := ""
		if in.Body != nil {
			reason = in.Body.Reason
		}
		j, err := r.cancelJob(ctx, in.ID, reason)
		return &jobReply{Status: http.StatusOK, Body: j}, err
	})
	again := operation(http.MethodPost, "/jobs/{id}/retry", "retry-job", "Try an ended job again, as a new job", "jobs")
	again.DefaultStatus = http.StatusCreated
	huma.Register(api, httpapi.Again(again), func(ctx context.Context, in *PathID) (*jobReply, error) {
		j, fresh, err := r.retryJob(ctx, in.ID)
		return reply(j, fresh), err
	})
}

func reply(j Job, fresh bool) *jobReply {
	out := &jobReply{Status: http.StatusOK, Location: "/jobs/" + string(j.ID), Body: j}
	if fresh {
		out.Status = http.StatusCreated
	}
	return out
}

func resource(j *job) authz.Resource {
	return authz.Resource{Type: "Job", ID: string(j.ID), Tenant: j.Tenant, Attrs: map[string]any{"owner": j.Owner, "tags": tagList(j.Tags)}}
}

// find returns a job of the caller's tenant, for action. Whether the caller may is asked
// here only if there is none.
func (r *Room) find(ctx context.Context, action, id string) (*job, error) {
	t := authz.From(ctx).Tenant
	j, err := r.readJob(ctx, t, ident.Job(id))
	if errors.Is(err, errAbsent) {
		return nil, r.gate.Absent(ctx, action, resource(&job{Job: Job{ID: ident.Job(id), Tenant: t}}), "job")
	}
	return j, err
}

// visible returns a job of the caller's tenant that the caller may read.
func (r *Room) visible(ctx context.Context, action, id string) (*job, error) {
	j, err := r.find(ctx, action, id)
	if err != nil {
		return nil, err
	}
	return j, r.gate.Pass(ctx, action, resource(j))
}

// stateFilter returns the end of a WHERE clause for a filter, so that each one walks an
// index that fits.
func stateFilter(s string, args *[]any) string {
	switch State(s) {
	case "":
		return ""
	case Pending, Scheduled, Running:
		*args = append(*args, s)
		return fmt.Sprintf(" AND live = 1 AND state = $%d", len(*args))
	case Failed, Cancelled, Terminated:
		*args = append(*args, s)
		return fmt.Sprintf(" AND state IN ('FAILED', 'CANCELLED', 'TERMINATED') AND state = $%d", len(*args))
	}
	return " AND live = 0 AND state = 'SUCCEEDED'" // the API lets no other through
}

func (r *Room) listJobs(ctx context.Context, in *struct {
	httpapi.Page
	State    string `query:"state" enum:"PENDING,SCHEDULED,RUNNING,SUCCEEDED,FAILED,CANCELLED,TERMINATED"`
	Pipeline string `query:"pipeline_id" maxLength:"128"`
	Run      string `query:"run_id" maxLength:"128"`
}) (*jobPage, error) {
	t := authz.From(ctx).Tenant
	if err := r.gate.Pass(ctx, "Job::read", authz.Resource{Type: "Job", ID: "*", Tenant: t}); err != nil {
		return nil, err
	}
	args := []any{string(t)}
	where := "tenant = $1"
	if in.Pipeline != "" || in.Run != "" { // their index, not the tenant's
		where = "tenant || '' = $1"
	}
	where += stateFilter(in.State, &args)
	if in.Pipeline != "" {
		args = append(args, in.Pipeline)
		where += fmt.Sprintf(" AND pipeline <> '' AND pipeline = $%d", len(args))
	}
	if in.Run != "" {
		args = append(args, in.Run)
		where += fmt.Sprintf(" AND run <> '' AND run = $%d", len(args))
	}
	if in.Cursor != "" {
		ms, id, err := cursor(in.Cursor)
		if err != nil {
			return nil, err
		}
		args = append(args, ms, id)
		where += fmt.Sprintf(" AND (created_ms, id) < ($%d, $%d)", len(args)-1, len(args))
	}
	args = append(args, in.Limit+1)
	rows, err := r.db.Query(ctx, fmt.Sprintf(`SELECT body FROM job WHERE %s ORDER BY created_ms DESC, id DESC LIMIT $%d`, where, len(args)), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := &jobPage{}
	out.Body.Items = []Job{}
	for rows.Next() {
		var j job
		if err := decode(rows, &j); err != nil {
			return nil, err
		}
		if len(out.Body.Items) == in.Limit {
			last := out.Body.Items[in.Limit-1]
			out.Body.Next = place(last.Created.UnixMilli(), string(last.ID))
			break
		}
		out.Body.Items = append(out.Body.Items, j.Job)
	}
	return out, rows.Err()
}

// place writes where a listing goes on.
func place(ms int64, id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(ms, 10) + " " + id))
}

func cursor(c string) (ms int64, id string, err error) {
	b, err := base64.RawURLEncoding.DecodeString(c)
	if err == nil {
		left, right, ok := strings.Cut(string(b), " ")
		if ms, err = strconv.ParseInt(left, 10, 64); err == nil && ok && ident.Valid(right) {
			return ms, right, nil
		}
	}
	return 0, "", httpapi.BadCursor()
}

// cancelJob calls a job off. One that was called off already is answered as it is.
func (r *Room) cancelJob(ctx context.Context, id, reason string) (Job, error) {
	if reason == "" {
		reason = "cancelled by " + authz.From(ctx).Sub
	}
	j, err := r.find(ctx, "Job::cancel", id)
	if err != nil {
		return Job{}, err
	}
	answer, err := r.gate.Ask(ctx, "Job::cancel", resource(j), nil)
	if err != nil {
		return Job{}, err
	}
	gone, forget := r.leave.watch(j.Tenant, j.ID)
	defer forget()
	var conflict, ran bool
	err = r.change(ctx, j.Tenant, j.ID, func(now *job, at time.Time) ([]event.Event, error) {
		j, conflict, ran = now, now.over() && now.State != Cancelled, now.State == Running
		if now.over() {
			return []event.Event{answer.Event}, nil
		}
		facts, err := now.cancel(at, reason)
		return append(facts, answer.Event), err
	})
	if err == nil && conflict {
		err = httpapi.Conflict("the job has ended: " + string(j.State))
	}
	if err == nil && ran {
		left(ctx, []<-chan struct{}{gone})
	}
	return j.Job, err
}

// retryJob tries an ended job again, as a new one; a job of a run by trying the
// run again.
func (r *Room) retryJob(ctx context.Context, id string) (Job, bool, error) {
	t := authz.From(ctx).Tenant
	old, err := r.find(ctx, "Job::retry", id)
	if err != nil {
		return Job{}, false, err
	}
	answer, err := r.gate.Ask(ctx, "Job::retry", resource(old), nil)
	if err != nil {
		return Job{}, false, err
	}
	switch {
	case !old.over():
		return Job{}, false, httpapi.Conflict("the job has not ended")
	case old.State == Succeeded:
		return Job{}, false, httpapi.Conflict("the job has succeeded; create another to run it again")
	case old.Run != "":
		return Job{}, false, httpapi.Conflict("the job belongs to a run: fragua pipeline retry " + string(old.Run) + ", or POST /runs/" + string(old.Run) + "/retry, runs again what failed")
	}
	if err := r.full(func() error {
		if old.RetriedBy == "" {
			return errAbsent
		}
		return nil
	}); err != nil {
		return Job{}, false, err
	}
	var (
		next  *job
		fresh bool
	)
	err = r.db.Write(ctx, func(tx *sqldb.Tx) error {
		fresh = false
		now := r.cfg.Now().UTC()
		old, err := r.known.load(tx, t, ident.Job(id))
		if err != nil {
			return err
		}
		if old.RetriedBy != "" {
			next, err = r.known.load(tx, t, old.RetriedBy)
			if err != nil {
				return err
			}
			return tx.Emit(answer.Event)
		}
		if err := r.admit(tx, 1); err != nil {
			return err
		}
		next = &job{Job: Job{
			ID: ident.Job(r.cfg.IDs("job")), Tenant: t, Correlation: old.Correlation, State: Pending, Attempts: 1, Spec: old.Spec,
			Steps: r.newSteps(old.Spec), Tags: old.Tags, Priority: old.Priority, Owner: authz.From(ctx).Sub, RetryOf: old.ID, Created: now,
		}}
		next.Trace = httpapi.TraceParent(ctx)
		fresh, old.RetriedBy = true, next.ID
		if err := r.known.save(tx, old, now); err != nil {
			return err
		}
		if err := r.known.insert(tx, next, fingerprint(next.ID), now); err != nil {
			return err
		}
		return tx.Emit(answer.Event, next.request(now))
	})
	if err != nil {
		return Job{}, false, err
	}
	return next.Job, fresh, nil
}
