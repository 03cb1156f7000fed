package observe

import (
	"context"
	"encoding/json"
	"strconv"

	"go.opentelemetry.io/otel/attribute"

	"fragua.dev/fragua/contract/ident"
)

// Names of the spans that are part of the platform's contract, and of the
// services they belong to.
const (
	SpanCreateJob    = "create_job"
	SpanScheduleJob  = "schedule_job"
	SpanCreateWorker = "create_worker"
	SpanRunStep      = "run_step"
	SpanEmitMetric   = "emit_metric"
	SpanAuthorize    = "authorize"
)

// CreateJob begins the span of accepting a job, up to JobRequested.
func CreateJob(ctx context.Context, tenant ident.Tenant, job ident.Job, specHash, correlation string) (context.Context, func(error)) {
	return start(ctx, tenant, job, "orchestration", SpanCreateJob, []attribute.KeyValue{
		attribute.String("spec_hash", specHash), attribute.String("correlation_id", correlation)})
}

// ScheduleJob begins the span of placing a job, up to AssignmentCreated. A node
// that is found only later is told by [Set] of node_id.
func ScheduleJob(ctx context.Context, tenant ident.Tenant, job ident.Job, node ident.Node, policy string) (context.Context, func(error)) {
	kvs := []attribute.KeyValue{attribute.String("policy", policy)}
	if node != "" {
		kvs = append(kvs, attribute.String("node_id", string(node)))
	}
	return start(ctx, tenant, job, "orchestration", SpanScheduleJob, kvs)
}

// CreateWorker begins the span of making a worker, up to WorkerCreated; job is
// empty for one that is made for no job.
func CreateWorker(ctx context.Context, tenant ident.Tenant, job ident.Job, provider, runtimeSpec string) (context.Context, func(error)) {
	return start(ctx, tenant, job, "worker", SpanCreateWorker, []attribute.KeyValue{
		attribute.String("provider_id", provider), attribute.String("runtime_spec", runtimeSpec)})
}

// RunStep begins the span of a step's execution, from StepStarted to
// StepCompleted. Its duration, in milliseconds, is added when it ends.
func RunStep(ctx context.Context, tenant ident.Tenant, job ident.Job, exec ident.Exec, step ident.Step) (context.Context, func(error)) {
	return start(ctx, tenant, job, "execution", SpanRunStep, []attribute.KeyValue{
		attribute.String("exec_id", string(exec)), attribute.String("step_id", string(step))})
}

// EmitMetric begins the span of telling the house a measurement, MetricEmitted.
func EmitMetric(ctx context.Context, tenant ident.Tenant, name string, value float64, tags map[string]string) (context.Context, func(error)) {
	text := "{}"
	if b, err := json.Marshal(tags); err == nil && len(tags) > 0 {
		text = string(b)
	}
	return start(ctx, tenant, "", "telemetry", SpanEmitMetric, []attribute.KeyValue{
		attribute.String("metric_name", name), attribute.String("value", strconv.FormatFloat(value, 'g', -1, 64)), attribute.String("tags", text)})
}

// Authorize begins the span of a decision, up to AuthGranted or
// AuthorizationDenied. A denial is no error of it: see [Set] of decision.
func Authorize(ctx context.Context, tenant ident.Tenant, principal, resource, action string) (context.Context, func(error)) {
	return start(ctx, tenant, "", "security", SpanAuthorize, []attribute.KeyValue{
		attribute.String("principal", principal), attribute.String("resource", resource), attribute.String("action", action)})
}
