package observe

import (
	"cmp"
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
)

// Attributes that spans of every kind may bear.
const (
	attrTenant = "tenant" // a span without one is shown to nobody
	attrJob    = "job_id"
)

// scope is what spans inherit from those around them.
type scope struct {
	observe *Observe
	tenant  ident.Tenant
	job     ident.Job
	began   time.Time // of the next span; zero: now
}

type scopeKey struct{}

func scopeOf(ctx context.Context) scope {
	s, _ := ctx.Value(scopeKey{}).(scope)
	return s
}

func (s scope) in(ctx context.Context) context.Context { return context.WithValue(ctx, scopeKey{}, s) }

// FromTraceParent returns a context whose spans continue the trace that s names,
// as W3C Trace Context writes it. Where s is no traceparent it returns ctx.
func FromTraceParent(ctx context.Context, s string) context.Context {
	// 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
	if len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' || s[:2] == "ff" || s[:2] == "00" && len(s) > 55 {
		return ctx
	}
	if strings.ToLower(s) != s {
		return ctx
	}
	traceID, err := trace.TraceIDFromHex(s[3:35])
	if err != nil {
		return ctx
	}
	spanID, err := trace.SpanIDFromHex(s[36:52])
	if err != nil {
		return ctx
	}
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID, SpanID: spanID, TraceFlags: trace.FlagsSampled, Remote: true,
	}))
}

// TraceParent returns the current span of ctx as W3C Trace Context writes it,
// for events and calls that follow from it; empty where there is none.
func TraceParent(ctx context.Context) string {
	c := trace.SpanContextFromContext(ctx)
	if !c.IsValid() {
		return ""
	}
	var b [55]byte
	copy(b[:], "00-")
	t, s := c.TraceID(), c.SpanID()
	hexInto(b[3:], t[:])
	b[35] = '-'
	hexInto(b[36:], s[:])
	copy(b[52:], "-01")
	return string(b[:])
}

func hexInto(dst, src []byte) {
	const digits = "0123456789abcdef"
	for i, c := range src {
		dst[2*i], dst[2*i+1] = digits[c>>4], digits[c&15]
	}
}

// FromEvent returns a context whose spans continue the trace of e, as its
// tenant's.
func FromEvent(ctx context.Context, e event.Event) context.Context {
	return Of(FromTraceParent(ctx, e.TraceParent), e.Tenant, "")
}

// Of returns a context whose spans are a tenant's, and of a job. What is empty
// stays as it was. Without it a span is of the tenant that [authz.From] knows.
func Of(ctx context.Context, tenant ident.Tenant, job ident.Job) context.Context {
	s := scopeOf(ctx)
	if tenant != "" {
		s.tenant = tenant
	}
	if job != "" {
		s.job = job
	}
	return s.in(ctx)
}

// Began returns a context whose next span began at a time that has passed: for
// work that another goroutine, or process, began.
func Began(ctx context.Context, at time.Time) context.Context {
	s := scopeOf(ctx)
	s.began = at
	return s.in(ctx)
}

// Start begins a span of a service, a part of the current span of ctx. The caller
// must call end once, with what went wrong or nil. Attributes are short texts, at
// most 32, of 512 bytes each; secrets have no place in them, nor in the error.
func Start(ctx context.Context, service, name string, attrs map[string]string) (_ context.Context, end func(error)) {
	kvs := make([]attribute.KeyValue, 0, len(attrs))
	for k, v := range attrs {
		kvs = append(kvs, attribute.String(k, v))
	}
	return start(ctx, "", "", service, name, kvs)
}

// start is Start, for a tenant and a job as [Of] takes them.
func start(ctx context.Context, tenant ident.Tenant, job ident.Job, service, name string, kvs []attribute.KeyValue) (context.Context, func(error)) {
	s := scopeOf(ctx)
	o := s.observe
	if o == nil {
		if o = current.Load(); o == nil {
			return ctx, func(error) {}
		}
	}
	was := s
	s.tenant, s.job = cmp.Or(tenant, s.tenant, authz.From(ctx).Tenant), cmp.Or(job, s.job)
	all := append(make([]attribute.KeyValue, 0, len(kvs)+2), kvs...)
	if s.tenant != "" {
		all = append(all, attribute.String(attrTenant, string(s.tenant)))
	}
	if s.job != "" {
		all = append(all, attribute.String(attrJob, string(s.job)))
	}
	at := s.began
	if at.IsZero() {
		at = o.cfg.Now()
	}
	if s.began = (time.Time{}); s != was {
		ctx = s.in(ctx)
	}
	ctx, span := o.tracer(service).Start(ctx, name, trace.WithTimestamp(at), trace.WithAttributes(all...))
	return ctx, func(err error) {
		if err != nil {
			text := err.Error()
			if len(text) > maxValue {
				text = strings.ToValidUTF8(text[:maxValue], "")
			}
			span.SetStatus(codes.Error, text)
		}
		span.End(trace.WithTimestamp(o.cfg.Now()))
	}
}

// Set adds an attribute, which was not known when it began, to the current span.
func Set(ctx context.Context, key, value string) {
	trace.SpanFromContext(ctx).SetAttributes(attribute.String(key, value))
}
