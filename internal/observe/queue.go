package observe

import (
	"context"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"fragua.dev/fragua/contract/event"
)

// queue takes spans that have ended away from whoever ended them, and hands them
// to the sink in batches. It is a span processor.
type queue struct {
	now     func() time.Time
	metrics *Metrics
	ended   chan sdktrace.ReadOnlySpan
	flush   chan chan struct{}
	quit    chan struct{}
	gone    chan struct{}
	once    sync.Once

	mu   sync.Mutex
	sink func([]event.Span)
}

func newQueue(cfg Config, m *Metrics) *queue {
	q := &queue{
		now: cfg.Now, metrics: m, sink: cfg.Sink, ended: make(chan sdktrace.ReadOnlySpan, maxQueue),
		flush: make(chan chan struct{}), quit: make(chan struct{}), gone: make(chan struct{}),
	}
	go q.work()
	return q
}

func (q *queue) setSink(sink func([]event.Span)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sink = sink
}

// OnStart does nothing: a span is told of when it has ended.
func (q *queue) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd takes a span, or drops it: it never waits.
func (q *queue) OnEnd(s sdktrace.ReadOnlySpan) {
	select {
	case q.ended <- s:
	default:
		q.metrics.spansDropped.Inc()
	}
}

// ForceFlush returns when what had ended before has been handed over.
func (q *queue) ForceFlush(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case q.flush <- done:
	case <-q.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Shutdown hands over what is left, and ends the work.
func (q *queue) Shutdown(ctx context.Context) error {
	q.once.Do(func() { close(q.quit) })
	select {
	case <-q.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (q *queue) work() {
	defer close(q.gone)
	t := time.NewTicker(batchEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			q.hand()
		case done := <-q.flush:
			q.hand()
			close(done)
		case <-q.quit:
			q.hand()
			return
		}
	}
}

// hand gives the sink what waits at this moment.
func (q *queue) hand() {
	q.mu.Lock()
	sink := q.sink
	q.mu.Unlock()
	if sink == nil {
		return
	}
	for left := len(q.ended); left > 0; {
		batch := make([]event.Span, 0, min(left, maxBatch))
		for len(batch) < cap(batch) {
			batch = append(batch, describe(<-q.ended)) // only this goroutine takes: left are there
		}
		left -= len(batch)
		q.metrics.spans.Add(float64(len(batch)))
		sink(batch)
	}
}

// describe writes a span as the house's events hold it.
func describe(s sdktrace.ReadOnlySpan) event.Span {
	c := s.SpanContext()
	out := event.Span{
		TraceContext: event.TraceContext{TraceID: c.TraceID().String(), SpanID: c.SpanID().String()},
		Name:         s.Name(), Service: s.InstrumentationScope().Name, Start: s.StartTime().UTC(), End: s.EndTime().UTC(),
	}
	if p := s.Parent(); p.SpanID().IsValid() {
		out.ParentSpanID = p.SpanID().String()
	}
	if st := s.Status(); st.Code == codes.Error {
		out.Error = st.Description
	}
	if attrs := s.Attributes(); len(attrs) > 0 {
		out.Attributes = make(map[string]string, len(attrs))
		for _, a := range attrs {
			out.Attributes[string(a.Key)] = a.Value.AsString()
		}
	}
	if out.Name == SpanRunStep && out.Attributes != nil {
		out.Attributes["duration"] = strconv.FormatInt(out.End.Sub(out.Start).Milliseconds(), 10)
	}
	return out
}
