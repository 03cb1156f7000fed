package observe

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"fragua.dev/fragua/contract/event"
)

// Bounds of what is kept of a span, and of how many wait to be taken over.
const (
	maxQueue    = 16384 // spans; what comes on top is dropped, and counted
	maxBatch    = 4096  // spans that a sink is given at once
	batchEvery  = time.Second
	maxValue    = 512 // bytes of an attribute's value, and of an error
	maxAttrs    = 32
	flushWithin = 5 * time.Second
)

// Config is what an Observe is made of. Its zero value will do.
type Config struct {
	Log  *slog.Logger // what goes wrong in here; slog.Default unless given
	Now  func() time.Time
	Sink func([]event.Span) // takes over spans that have ended; see [Observe.SetSink]
}

// Observe gathers what one process of the house tells of itself. A nil *Observe
// gathers nothing.
type Observe struct {
	cfg      Config
	metrics  *Metrics
	provider *sdktrace.TracerProvider
	tracers  sync.Map // service → trace.Tracer
	queue    *queue
}

// current is where spans go that are started in a context without an Observe:
// events reach the rooms in contexts of their own.
var current atomic.Pointer[Observe]

// New returns an Observe, and makes it the one of this process: [Start] and its
// kin tell it what they begin. The last one made is the one, until its Close.
func New(cfg Config) *Observe {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	o := &Observe{cfg: cfg, metrics: newMetrics()}
	o.queue = newQueue(cfg, o.metrics)
	limits := sdktrace.SpanLimits{
		AttributeValueLengthLimit: maxValue, AttributeValueDepthLimit: 1, AttributeCountLimit: maxAttrs,
		EventCountLimit: 0, LinkCountLimit: 0, AttributePerEventCountLimit: 0, AttributePerLinkCountLimit: 0,
	}
	o.provider = sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // a caller does not decide what this house knows of itself
		sdktrace.WithResource(resource.Empty()),       // every span names its service
		sdktrace.WithRawSpanLimits(limits),
		sdktrace.WithoutPanicRecording(),
		sdktrace.WithSpanProcessor(o.queue),
	)
	current.Store(o)
	return o
}

// Metrics returns the numbers of this process; nil for a nil Observe, which all
// methods of [Metrics] take.
func (o *Observe) Metrics() *Metrics {
	if o == nil {
		return nil
	}
	return o.metrics
}

// TracerProvider returns where libraries that know OpenTelemetry begin spans.
func (o *Observe) TracerProvider() trace.TracerProvider { return o.provider }

// SetSink has ended spans handed to sink from now on, in batches of at most 4096,
// every second, by one goroutine. While there is no sink they wait,
// up to a bound. A sink that is slow loses spans, and slows nothing else.
func (o *Observe) SetSink(sink func([]event.Span)) {
	if o != nil {
		o.queue.setSink(sink)
	}
}

// Flush hands over what has ended so far, and returns when the sink has it.
func (o *Observe) Flush(ctx context.Context) error {
	if o == nil {
		return nil
	}
	return o.queue.ForceFlush(ctx)
}

// Close hands over what is left, and ends this Observe.
func (o *Observe) Close() {
	if o == nil {
		return
	}
	current.CompareAndSwap(o, nil)
	ctx, cancel := context.WithTimeout(context.Background(), flushWithin)
	defer cancel()
	if err := o.provider.Shutdown(ctx); err != nil {
		o.cfg.Log.Warn("spans are lost", "error", err)
	}
}

func (o *Observe) tracer(service string) trace.Tracer {
	if t, ok := o.tracers.Load(service); ok {
		return t.(trace.Tracer)
	}
	t := o.provider.Tracer(service)
	o.tracers.Store(service, t)
	return t
}
