package event

import (
	"encoding/json"
	"time"
)

// AppendJSON appends e in JSON to b: what encoding/json makes of it, but Data,
// which was made by this package or has been read, is not looked at again. A busy
// house writes thousands of events a second.
func (e Event) AppendJSON(b []byte) []byte {
	text := func(name, s string) {
		b = append(b, name...)
		b = appendString(b, s)
	}
	text(`{"specversion":`, e.SpecVersion)
	text(`,"id":`, string(e.ID))
	text(`,"source":`, e.Source)
	text(`,"type":`, e.Type)
	text(`,"subject":`, e.Subject)
	b = append(b, `,"time":"`...)
	b = e.Time.AppendFormat(b, time.RFC3339Nano)
	text(`","datacontenttype":`, e.DataContentType)
	text(`,"correlation_id":`, e.CorrelationID)
	text(`,"tenant_id":`, string(e.Tenant))
	if e.TraceParent != "" {
		text(`,"traceparent":`, e.TraceParent)
	}
	b = append(b, `,"data":`...)
	if len(e.Data) == 0 {
		b = append(b, "null"...)
	}
	b = append(b, e.Data...)
	if e.Key != "" {
		text(`,"partitionkey":`, e.Key)
	}
	return append(b, '}')
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			if err != nil {
				panic("event: a string cannot be written: " + err.Error()) // there is none
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
