package event

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// An appender writes itself as encoding/json would: the data of the events of which
// there are most.
type appender interface{ AppendJSON(b []byte) []byte }

// encode returns an event's data in JSON.
func encode(data any) json.RawMessage {
	if a, ok := data.(appender); ok {
		return a.AppendJSON(make([]byte, 0, 512))
	}
	raw, err := json.Marshal(data)
	if err != nil {
		panic(fmt.Sprintf("event: %T: %v", data, err)) // the types are ours: a bug, not an input
	}
	return raw
}

// AppendJSON appends g in JSON.
func (g Grant) AppendJSON(b []byte) []byte {
	b = appendString(append(b, `{"principal":{"sub":`...), g.Principal.Sub)
	b = appendStrings(append(b, `,"scopes":`...), g.Principal.Scopes)
	b = appendString(append(b, `,"tenant_id":`...), string(g.Principal.Tenant))
	b = appendString(append(b, `},"scope":`...), g.Scope)
	b = appendString(append(b, `,"decision_id":`...), string(g.DecisionID))
	b = appendString(append(b, `,"resource":`...), g.Resource)
	if len(g.Policies) > 0 {
		b = appendStrings(append(b, `,"policies":`...), g.Policies)
	}
	return append(b, '}')
}

// AppendJSON appends t in JSON.
func (t Trace) AppendJSON(b []byte) []byte {
	b = t.Context.appendFields(append(b, `{"trace_context":{`...))
	return append(AppendSpans(append(b, `},"spans":`...), t.Spans), '}')
}

const spanBytes = 448 // of most spans

// AppendSpans appends spans in JSON.
func AppendSpans(b []byte, spans []Span) []byte {
	if spans == nil {
		return append(b, "null"...)
	}
	b = append(slices.Grow(b, spanBytes*len(spans)), '[')
	for i, s := range spans {
		if i > 0 {
			b = append(b, ',')
		}
		b = s.AppendJSON(b)
	}
	return append(b, ']')
}

// AppendJSON appends s in JSON.
func (s Span) AppendJSON(b []byte) []byte {
	b = s.TraceContext.appendFields(append(b, '{'))
	b = appendString(append(b, `,"name":`...), s.Name)
	b = appendString(append(b, `,"service":`...), s.Service)
	b = s.Start.AppendFormat(append(b, `,"start":"`...), time.RFC3339Nano)
	b = s.End.AppendFormat(append(b, `","end":"`...), time.RFC3339Nano)
	b = append(b, '"')
	if s.Error != "" {
		b = appendString(append(b, `,"error":`...), s.Error)
	}
	if len(s.Attributes) > 0 {
		open := `,"attributes":{`
		for _, k := range slices.Sorted(maps.Keys(s.Attributes)) {
			b = appendString(append(b, open...), k)
			b = appendString(append(b, ':'), s.Attributes[k])
			open = ","
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

func (c TraceContext) appendFields(b []byte) []byte {
	b = appendString(append(b, `"trace_id":`...), c.TraceID)
	b = appendString(append(b, `,"span_id":`...), c.SpanID)
	if c.ParentSpanID != "" {
		b = appendString(append(b, `,"parent_span_id":`...), c.ParentSpanID)
	}
	return b
}

func appendStrings(b []byte, all []string) []byte {
	if all == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i, s := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}
