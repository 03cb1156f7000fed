package event

import (
	"encoding/json"
	"testing"
	"time"

	"fragua.dev/fragua/contract/ident"
)

// FuzzAppendJSON holds the quick way to write an event against the library's.
func FuzzAppendJSON(f *testing.F) {
	f.Add("job_1", "acme", "req", "00-1-2-01", "job_1", int64(1))
	f.Add("a\"b\\c<&>\x00\u2028é\xff", "", "", "", "", int64(-1))
	f.Fuzz(func(t *testing.T, id, tenant, correlation, trace, key string, ns int64) {
		e := JobCancelled.Event(About{Tenant: ident.Tenant(tenant), Key: key, Twist: id, Correlation: correlation, TraceParent: trace, At: time.Unix(0, ns)}, JobStop{Job: ident.Job(id), Reason: tenant})
		want, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.AppendJSON(nil); string(got) != string(want) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// FuzzAppendData holds the quick way to write the data of events against the library's.
func FuzzAppendData(f *testing.F) {
	f.Add("span", "a\"b\\c<&>\x00\u2028é\xff", "", int64(1), 2)
	f.Add("", "", "x", int64(-1), 0)
	f.Add("run_step", "duration", "10", int64(1e18), 1)
	f.Fuzz(func(t *testing.T, a, b, c string, ns int64, n int) {
		var list []string
		for i := range n & 3 {
			list = append(list, a[:min(i, len(a))]+b)
		}
		span := Span{TraceContext: TraceContext{TraceID: a, SpanID: b, ParentSpanID: c}, Name: c, Service: a, Start: time.Unix(0, ns).UTC(), End: time.Unix(ns>>32, 0).UTC(), Error: c}
		if n&4 != 0 {
			span.Attributes = map[string]string{a: b, b: c, c: a}
		}
		trace := Trace{Context: span.TraceContext}
		for range n & 3 {
			trace.Spans = append(trace.Spans, span)
		}
		grant := Grant{Principal: Principal{Sub: a, Scopes: list, Tenant: ident.Tenant(c)}, Scope: b, DecisionID: ident.Decision(c), Resource: a, Policies: list}
		for _, data := range []any{trace, grant} {
			want, err := json.Marshal(data)
			if err != nil {
				t.Fatal(err)
			}
			if got := encode(data); string(got) != string(want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
	})
}

// TestReadIsWhatWasSaid has data pass within a process as it is, and through JSON
// as it was.
func TestReadIsWhatWasSaid(t *testing.T) {
	e := JobRequested.Event(About{Tenant: "acme", Key: "job_1", At: time.Unix(1, 0)}, JobRequest{Job: "job_1", Attempt: 3})
	near, err := JobRequested.Read(e)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(e.AppendJSON(nil))
	if err != nil {
		t.Fatal(err)
	}
	far, err := JobRequested.Read(back)
	if err != nil || near.Job != far.Job || near.Attempt != far.Attempt || far.Attempt != 3 {
		t.Errorf("near %+v, far %+v, %v", near, far, err)
	}
	if _, err := JobCompleted.Read(e); err == nil {
		t.Error("an event is read as another")
	}
}
