package observe

import (
	"context"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"

	"fragua.dev/fragua/contract/authz"
)

// Keys of the fields that the platform's log records share.
const (
	FieldTenant   = "tenant"
	FieldResource = "resource"
	FieldAction   = "action"
	FieldDecision = "decision"
	FieldError    = "error"
	FieldTrace    = "trace_id"
)

// Logger returns a logger of records from level on, one a line, as JSON or as
// text for people. A record that is logged with a context bears the tenant and
// the trace that the context knows.
func Logger(w io.Writer, level slog.Leveler, json bool) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if json {
		return slog.New(handler{slog.NewJSONHandler(w, o)})
	}
	return slog.New(handler{slog.NewTextHandler(w, o)})
}

// handler adds what the context knows.
type handler struct{ slog.Handler }

// Handle writes a record.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if ctx == nil || ctx == context.Background() {
		return h.Handler.Handle(ctx, r)
	}
	has := map[string]bool{}
	r.Attrs(func(a slog.Attr) bool { has[a.Key] = true; return true })
	tenant := scopeOf(ctx).tenant
	if tenant == "" {
		tenant = authz.From(ctx).Tenant
	}
	if tenant != "" && !has[FieldTenant] {
		r.AddAttrs(slog.String(FieldTenant, string(tenant)))
	}
	if c := trace.SpanContextFromContext(ctx); c.HasTraceID() && !has[FieldTrace] {
		r.AddAttrs(slog.String(FieldTrace, c.TraceID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs is a slog.Handler's.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs)}
}

// WithGroup is a slog.Handler's.
func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name)} }

// Decided returns the fields of a record about a decision: what it was about,
// what was asked, and permit or deny.
func Decided(resource, action string, permit bool) slog.Attr {
	decision := "deny"
	if permit {
		decision = "permit"
	}
	return slog.Attr{Value: slog.GroupValue( // a group without a name lies flat
		slog.String(FieldResource, resource), slog.String(FieldAction, action), slog.String(FieldDecision, decision))}
}
