package telemetry

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/httpapi"
)

type tracesIn struct {
	Job    string `query:"job_id" maxLength:"128" doc:"Only spans of this job, and what led to it"`
	Trace  string `query:"trace_id" maxLength:"32" pattern:"^[0-9a-f]{32}$" doc:"Only spans of this trace"`
	Limit  int    `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"How many spans to answer at most"`
	Cursor string `query:"cursor" maxLength:"64" doc:"next_cursor of the page before"`
}

type spanBody struct {
	TraceID    string         `json:"trace_id"`
	SpanID     string         `json:"span_id"`
	Parent     string         `json:"parent_span_id,omitempty"`
	Name       string         `json:"name"`
	Service    string         `json:"service"`
	Start      time.Time      `json:"start"`
	End        time.Time      `json:"end"`
	DurationMS float64        `json:"duration_ms"`
	Error      string         `json:"error,omitempty"`
	Attributes map[string]any `json:"attributes" doc:"Texts; duration, in milliseconds, and value are numbers"`
}

type tracesOut struct {
	Body struct {
		Items []spanBody `json:"items" nullable:"false"`
		Next  string     `json:"next_cursor"`
	}
}

func (r *Room) traces(ctx context.Context, in *tracesIn) (*tracesOut, error) {
	after, skip, err := place(in.Cursor)
	if err != nil {
		return nil, err
	}
	tenant := authz.From(ctx).Tenant
	if err := r.gate.Pass(ctx, "Telemetry::read", authz.Resource{Type: "Telemetry", ID: "traces", Tenant: tenant}); err != nil {
		return nil, err
	}
	if in.Job != "" && !ident.Valid(in.Job) {
		return nil, httpapi.NotFound("job")
	}
	rows, err := r.chunks(ctx, tenant, in, after)
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	defer rows.Close()
	out := &tracesOut{}
	out.Body.Items = []spanBody{}
	for rows.Next() && out.Body.Next == "" {
		var (
			seq  int64
			body []byte
			all  []event.Span
		)
		if err := rows.Scan(&seq, &body); err != nil {
			return nil, fmt.Errorf("telemetry: %w", err)
		}
		if err := json.Unmarshal(body, &all); err != nil {
			return nil, fmt.Errorf("telemetry: chunk %d: %w", seq, err)
		}
		if seq != after {
			skip = 0
		}
		for i := min(skip, len(all)); i < len(all); i++ {
			if job := all[i].Attributes["job_id"]; in.Job != "" && job != "" && job != in.Job {
				continue // of a run's trace, the other jobs' are left out
			}
			if len(out.Body.Items) == in.Limit {
				out.Body.Next = strconv.FormatInt(seq, 10) + "." + strconv.Itoa(i)
				break
			}
			out.Body.Items = append(out.Body.Items, show(all[i]))
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	slices.SortStableFunc(out.Body.Items, func(a, b spanBody) int {
		if in.Job == "" && in.Trace == "" {
			a, b = b, a // the latest first
		}
		return a.Start.Compare(b.Start)
	})
	return out, nil
}

// chunks reads what may hold the spans that are asked for, from after on.
func (r *Room) chunks(ctx context.Context, t ident.Tenant, in *tracesIn, after int64) (*sql.Rows, error) {
	switch {
	case in.Job != "":
		// All of its traces: what is no job's may stand with another job's.
		return r.db.Query(ctx, `SELECT seq, body FROM chunk WHERE tenant = $1 AND seq >= $4 AND ($3 = '' OR trace = $3)
			AND trace IN (SELECT trace FROM chunk WHERE tenant = $1 AND job = $2 AND job <> '') ORDER BY seq`, string(t), in.Job, in.Trace, after)
	case in.Trace != "":
		return r.db.Query(ctx, `SELECT seq, body FROM chunk WHERE tenant = $1 AND trace = $2 AND seq >= $3 ORDER BY seq`, string(t), in.Trace, after)
	case after == 0: // the plus keeps SQLite from sorting what it can walk
		return r.db.Query(ctx, `SELECT seq, body FROM chunk WHERE +tenant = $1 ORDER BY seq DESC`, string(t))
	}
	return r.db.Query(ctx, `SELECT seq, body FROM chunk WHERE +tenant = $1 AND seq <= $2 ORDER BY seq DESC`, string(t), after)
}

func show(s event.Span) spanBody {
	attrs := make(map[string]any, len(s.Attributes))
	for k, v := range s.Attributes {
		attrs[k] = v
		if n, err := strconv.ParseFloat(v, 64); err == nil && (k == "duration" || k == "value") && !math.IsInf(n, 0) && !math.IsNaN(n) {
			attrs[k] = n
		}
	}
	return spanBody{
		TraceID: s.TraceID, SpanID: s.SpanID, Parent: s.ParentSpanID, Name: s.Name, Service: s.Service, Start: s.Start, End: s.End,
		DurationMS: float64(s.End.Sub(s.Start).Microseconds()) / 1000, Error: s.Error, Attributes: attrs,
	}
}

// place reads a cursor: a chunk, and how many of its spans were answered.
func place(cursor string) (seq int64, skip int, err error) {
	if cursor == "" {
		return 0, 0, nil
	}
	if n, err := fmt.Sscanf(cursor, "%d.%d", &seq, &skip); n != 2 || err != nil || seq < 1 || skip < 0 || fmt.Sprintf("%d.%d", seq, skip) != cursor {
		return 0, 0, httpapi.BadCursor()
	}
	return seq, skip, nil
}

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }
