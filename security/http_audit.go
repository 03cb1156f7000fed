package security

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/httpapi"
)

func (r *Room) auditRoutes(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "list-audit", Method: http.MethodGet, Path: "/audit", Tags: []string{"security"}, Summary: "Decisions, the newest first",
		Description: "Every permit, denial and revocation of the tenant. A decision is here a moment after it was made.",
	}, r.listAudit)
}

type auditView struct {
	Decision    ident.Decision `json:"decision_id"`
	Time        time.Time      `json:"time"`
	Kind        string         `json:"decision" enum:"permit,deny,revoke"`
	Tenant      ident.Tenant   `json:"tenant_id"`
	Principal   string         `json:"principal"`
	Action      string         `json:"action" example:"Job::create"`
	Resource    string         `json:"resource" example:"Job::job_01"`
	Policies    []string       `json:"policies,omitempty" doc:"The policies that permitted it"`
	Reason      string         `json:"reason,omitempty" doc:"Why it was denied"`
	Correlation string         `json:"correlation_id,omitempty"`
}

type auditPage struct {
	Body struct {
		Items []auditView `json:"items"`
		Next  string      `json:"next_cursor,omitempty"`
	}
}

func (r *Room) listAudit(ctx context.Context, in *struct {
	httpapi.Page
	Principal string    `query:"principal" maxLength:"512" doc:"Only of this principal"`
	Action    string    `query:"action" maxLength:"128" example:"Job::create" doc:"Only of this action"`
	Decision  string    `query:"decision" enum:"permit,deny,revoke" doc:"Only these"`
	Since     time.Time `query:"since" doc:"Only from then on"`
}) (*auditPage, error) {
	t := authz.From(ctx).Tenant
	answer, err := r.gate.Passed(ctx, "Audit::read", authz.Resource{Type: "Audit", ID: "*", Tenant: t})
	if err != nil {
		return nil, err
	}
	r.heard(ctx, t, answer.DecisionID)
	where, args := "tenant = $1", []any{string(t)}
	filter := func(condition string, v any) {
		args = append(args, v)
		where += " AND " + condition + " $" + strconv.Itoa(len(args))
	}
	if in.Principal != "" {
		filter("principal =", in.Principal)
	}
	if in.Action != "" {
		filter("action =", in.Action)
	}
	for k, name := range kinds {
		if in.Decision == name {
			filter("kind =", k)
		}
	}
	if !in.Since.IsZero() {
		filter("at_us >=", in.Since.UnixMicro())
	}
	if in.Cursor != "" {
		kind, decision, ok := strings.Cut(in.Cursor, ".")
		n, err := strconv.Atoi(kind)
		if !ok || err != nil || kinds[n] == "" || !ident.Valid(decision) {
			return nil, httpapi.BadCursor()
		}
		args = append(args, decision, n)
		where += " AND (decision, kind) < ($" + strconv.Itoa(len(args)-1) + ", $" + strconv.Itoa(len(args)) + ")"
	}
	args = append(args, in.Limit+1)
	rows, err := r.db.Query(ctx, `SELECT decision, kind, at_us, principal, action, resource, why, correlation FROM audit
		WHERE `+where+` ORDER BY decision DESC, kind DESC LIMIT $`+strconv.Itoa(len(args)), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := &auditPage{}
	last := ""
	for rows.Next() {
		if len(out.Body.Items) == in.Limit {
			out.Body.Next = last
			break
		}
		var (
			v    = auditView{Tenant: t}
			kind int
			us   int64
			why  string
		)
		if err := rows.Scan(&v.Decision, &kind, &us, &v.Principal, &v.Action, &v.Resource, &why, &v.Correlation); err != nil {
			return nil, err
		}
		v.Time, v.Kind = time.UnixMicro(us).UTC(), kinds[kind]
		if kind == denied {
			v.Reason = why
		} else {
			v.Policies = strings.Fields(why)
		}
		last = strconv.Itoa(kind) + "." + string(v.Decision)
		out.Body.Items = append(out.Body.Items, v)
	}
	return out, rows.Err()
}
