package telemetry

import (
	"context"
	"fmt"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/sqldb"
)

const (
	maxTold   = 256 // spans in one TraceSpans
	maxShrink = 200 // chunks that are let go of in one transaction
)

// A chunk is what came together of one trace and one job.
type chunk struct {
	tenant ident.Tenant
	trace  string
	job    string
	spans  []event.Span
	body   []byte
}

// Keep is where observe's spans go, and those of other processes. It runs on
// observe's own goroutine: while it writes, what ends waits there, up to a bound.
func (r *Room) Keep(spans []event.Span) {
	ctx, cancel := context.WithTimeout(context.Background(), writeTime)
	defer cancel()
	if err := r.store(ctx, spans); err != nil {
		r.cfg.Log.Warn("spans are lost", "spans", len(spans), "error", err)
	}
}

func (r *Room) store(ctx context.Context, spans []event.Span) error {
	chunks := gather(spans)
	if len(chunks) == 0 {
		return nil
	}
	told := r.told(chunks)
	n := 0
	for _, c := range chunks {
		n += len(c.spans)
	}
	now := r.cfg.Now().UnixMilli()
	err := r.db.Write(ctx, func(tx *sqldb.Tx) error {
		for _, c := range chunks {
			if _, err := tx.Exec(`INSERT INTO chunk (tenant, trace, job, at_ms, n, body) VALUES ($1, $2, $3, $4, $5, $6)`,
				string(c.tenant), c.trace, c.job, now, len(c.spans), c.body); err != nil {
				return err
			}
		}
		return tx.Emit(told...)
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.kept += n
	full := r.kept > r.cfg.MaxSpans
	r.mu.Unlock()
	if full {
		return r.shrink(ctx)
	}
	return nil
}

// gather sorts spans into chunks, in the order in which they came. Those of no
// tenant are nobody's to see, and are not kept. Those of no job go with the job of
// their trace, where it is of one only.
func gather(spans []event.Span) []*chunk {
	type trace struct{ tenant, id string }
	type key struct {
		trace
		job string
	}
	const several = "\x00"
	jobs := map[trace]string{}
	for _, s := range spans {
		t, job := trace{s.Attributes["tenant"], s.TraceID}, s.Attributes["job_id"]
		if one := jobs[t]; job != "" && one != job {
			if one != "" {
				job = several
			}
			jobs[t] = job
		}
	}
	byKey := map[key]*chunk{}
	var out []*chunk
	for _, s := range spans {
		k := key{trace{s.Attributes["tenant"], s.TraceID}, s.Attributes["job_id"]}
		if k.tenant == "" {
			continue
		}
		if k.job == "" && jobs[k.trace] != several {
			k.job = jobs[k.trace]
		}
		c := byKey[k]
		if c == nil {
			c = &chunk{tenant: ident.Tenant(k.tenant), trace: k.id, job: k.job}
			byKey[k] = c
			out = append(out, c)
		}
		c.spans = append(c.spans, s)
	}
	for _, c := range out {
		c.body = event.AppendSpans(nil, c.spans)
	}
	return out
}

// told makes the events that tell each tenant of its spans.
func (r *Room) told(chunks []*chunk) []event.Event {
	byTenant := map[ident.Tenant][]event.Span{}
	var order []ident.Tenant
	for _, c := range chunks {
		if byTenant[c.tenant] == nil {
			order = append(order, c.tenant)
		}
		byTenant[c.tenant] = append(byTenant[c.tenant], c.spans...)
	}
	var out []event.Event
	for _, t := range order {
		for all := byTenant[t]; len(all) > 0; {
			part := all[:min(len(all), maxTold)]
			all = all[len(part):]
			id := r.cfg.IDs("spn")
			out = append(out, event.TraceSpans.Event(
				event.About{Tenant: t, Key: id, Correlation: id, TraceParent: "00-" + part[0].TraceID + "-" + part[0].SpanID + "-01", At: r.cfg.Now()},
				event.Trace{Context: part[0].TraceContext, Spans: part}))
		}
	}
	return out
}

// shrink lets go of spans that are too old or too many, oldest first, a few at
// a time so that nothing waits for it.
func (r *Room) shrink(ctx context.Context) error {
	for ctx.Err() == nil {
		r.mu.Lock()
		over := r.kept - r.cfg.MaxSpans
		r.mu.Unlock()
		cutoff := r.cfg.Now().Add(-r.cfg.KeepFor).UnixMilli()
		var gone, chunks int
		err := r.db.Write(ctx, func(tx *sqldb.Tx) error {
			gone, chunks = 0, 0
			last, err := oldest(tx, cutoff, over, &gone, &chunks)
			if err != nil || chunks == 0 {
				return err
			}
			_, err = tx.Exec(`DELETE FROM chunk WHERE seq <= $1`, last)
			return err
		})
		if err != nil {
			return fmt.Errorf("old spans stay: %w", err)
		}
		r.mu.Lock()
		r.kept -= gone
		r.mu.Unlock()
		if chunks < maxShrink {
			return nil
		}
	}
	return ctx.Err()
}

// oldest finds up to which chunk spans can go: gone of them, in chunks.
func oldest(tx *sqldb.Tx, cutoff int64, over int, gone, chunks *int) (last int64, err error) {
	rows, err := tx.Query(`SELECT seq, at_ms, n FROM chunk ORDER BY seq LIMIT $1`, maxShrink)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var seq, at int64
		var n int
		if err := rows.Scan(&seq, &at, &n); err != nil {
			return 0, err
		}
		if at >= cutoff && *gone >= over {
			break
		}
		last, *gone, *chunks = seq, *gone+n, *chunks+1
	}
	return last, rows.Err()
}
