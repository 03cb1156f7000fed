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
