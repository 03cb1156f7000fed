package scheduling

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/httpapi"
)

// call asks the room's API as someone of a tenant, and reads the answer into out.
func (h *house) call(tenant, method, path, body string, out any) int {
	h.t.Helper()
	mux := http.NewServeMux()
	h.Routes(httpapi.New(mux, "test"))
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	who := authz.Principal{Sub: "ann", Scopes: []string{"*"}, Tenant: ident.Tenant(tenant)}
	rec := httptest.NewRecorder()
	mux.ServeHTTP(rec, req.WithContext(authz.With(req.Context(), who)))
	if out != nil && rec.Code < 300 {
		if err := json.Unmarshal(rec.Body.Bytes(), out); err != nil {
			h.t.Fatalf("%s %s: %v in %s", method, path, err, rec.Body)
		}
	}
	return rec.Code
}

func TestSchedule(t *testing.T) {
	h := newHouse(t, node("n1", 1000))
	var got, again assignmentBody
	ask := `{"job_id":"j1","resources":{"cpu_m":600},"affinity":{"by_zone":"eu"}}`
	if code := h.call("acme", "POST", "/schedule", ask, &got); code != 201 || got.State != Created || got.Node != "n1" || got.Policy != Policy || got.Assignment == "" {
		t.Fatalf("%d %+v", code, got)
	}
	if code := h.call("acme", "POST", "/schedule", ask, &again); code != 200 || again != got {
		t.Errorf("again: %d %+v", code, again)
	}
	if code := h.call("acme", "POST", "/schedule", `{"job_id":"j1","resources":{"cpu_m":601},"affinity":{"by_zone":"eu"}}`, nil); code != 409 {
		t.Errorf("something else: %d", code)
	}
	var other assignmentBody
	if code := h.call("other", "POST", "/schedule", ask, &other); code != 201 || other.State != Pending || other.Assignment == got.Assignment {
		t.Errorf("another tenant's job of the same name: %d %+v", code, other)
	}
	var big, taken assignmentBody
	if code := h.call("acme", "POST", "/schedule", `{"job_id":"big","resources":{"cpu_m":6000}}`, &big); code != 201 || big.State != Rejected || big.Reason == "" {
		t.Errorf("big: %d %+v", code, big)
	}
	h.pass(960416108 * time.Nanosecond)
	for i := range 3 { // from memory, and then from the row
		var got assignmentBody
		if code := h.call("acme", "DELETE", "/schedule/big", "", &got); code != 200 || got.Ended == nil {
			t.Errorf("%d %+v", code, got)
		} else if i == 0 {
			taken = got
		} else if !got.Ended.Equal(*taken.Ended) {
			t.Errorf("it ended at %s, and when asked again at %s", taken.Ended, got.Ended)
		}
	}
	all := said(h, event.AssignmentCreated)
	if len(all) != 1 || all[0].Attempt != 0 || all[0].Runtime.Limits.MemoryMB != spec.DefaultMemoryMB {
		t.Fatalf("%+v", all)
	}

	// It is given back by DELETE, and free when the worker has ended.
	if code := h.call("third", "DELETE", "/schedule/j1", "", nil); code != 404 {
		t.Errorf("a foreign one: %d", code)
	}
	for range 2 {
		if code := h.call("acme", "DELETE", "/schedule/j1", "", &got); code != 200 || got.State != Revoked {
			t.Errorf("%d %+v", code, got)
		}
	}
	if n := len(said(h, event.AssignmentRevoked)); n != 1 || h.free("n1").CPUm != 400 {
		t.Errorf("%d revoked, %+v free", n, h.free("n1"))
	}
	h.hear(h.workerEnded(all[0]))
	if code := h.call("other", "POST", "/schedule", ask, &other); code != 200 || other.State != Created {
		t.Errorf("who waited: %d %+v", code, other)
	}
	if code := h.call("acme", "POST", "/schedule", ask, &again); code != 200 || again.State != Revoked || again.Ended == nil {
		t.Errorf("what is over: %d %+v", code, again)
	}
}

// TestScheduleBeforeTheJob has a place be asked for by hand for a job that then
// asks itself.
func TestScheduleBeforeTheJob(t *testing.T) {
	h := newHouse(t, node("n1", 1000))
	h.call("acme", "POST", "/schedule", `{"job_id":"j1","resources":{"cpu_m":100,"memory_mb":1}}`, nil)
	h.hear(h.requested("j1", 1, quota(100, 1)))
	all := said(h, event.AssignmentCreated)
	if len(all) != 2 || all[1].Attempt != 1 || all[1].Assignment == all[0].Assignment || all[1].Runtime.Image != "golang" {
		t.Fatalf("%+v", all)
	}
	if r := said(h, event.AssignmentRevoked); len(r) != 1 || r[0].Assignment != all[0].Assignment {
		t.Errorf("%+v", r)
	}
	var got assignmentBody
	if code := h.call("acme", "POST", "/schedule", `{"job_id":"j1","resources":{"cpu_m":100,"memory_mb":1}}`, &got); code != 200 || got.Attempt != 1 {
		t.Errorf("%d %+v", code, got)
	}
	if code := h.call("acme", "DELETE", "/schedule/j1", "", nil); code != 409 {
		t.Errorf("the job's own place is taken back: %d", code)
	}
}

// TestAJobIsExplainedAtOnce asks about a job that this room has not heard of yet.
func TestAJobIsExplainedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		told := make(chan int)
		go func() { told <- h.call("acme", "GET", "/jobs/j1/explain", "", nil) }()
		synctest.Wait()
		h.hear(h.requested("j1", 1, quota(1, 1)))
		if code := <-told; code != 200 {
			t.Errorf("%d, want 200", code)
		}
		h.Close()
	})
}

func TestScheduleRefuses(t *testing.T) {
	h := newHouse(t)
	h.cfg.MaxQueue = 1
	h.restart()
	for body, want := range map[string]int{
		`{"job_id":"a/b","resources":{}}`:             422,
		`{"job_id":"","resources":{}}`:                422,
		`{"job_id":"a"}`:                              422,
		`{"job_id":"a","resources":{"cpu_m":-1}}`:     422,
		`{"job_id":"a","resources":{"cpu_m":"much"}}`: 422,
		`{"job_id":"a","resources":{},"tenant":"x"}`:  422,
		`{"job_id":`: 400,
	} {
		if code := h.call("acme", "POST", "/schedule", body, nil); code != want {
			t.Errorf("%s: %d, want %d", body, code, want)
		}
	}
	h.call("acme", "POST", "/schedule", `{"job_id":"a","resources":{}}`, nil)
	if code := h.call("acme", "POST", "/schedule", `{"job_id":"b","resources":{}}`, nil); code != 429 {
		t.Errorf("a full queue: %d", code)
	}
	if code := h.call("acme", "POST", "/schedule", `{"job_id":"a","resources":{}}`, nil); code != 200 {
		t.Errorf("the same again while the queue is full: %d", code)
	}
	h.judge.no = func(authz.Question) string { return "no" }
	for _, c := range [][2]string{{"POST", "/schedule"}, {"DELETE", "/schedule/a"}, {"GET", "/nodes"}, {"GET", "/nodes/n1"}, {"GET", "/jobs/a/explain"}} {
		body := ""
		if c[0] == "POST" {
			body = `{"job_id":"a","resources":{}}`
		}
		if code := h.call("acme", c[0], c[1], body, nil); code != 403 {
			t.Errorf("%s %s denied: %d", c[0], c[1], code)
		}
	}
}

func TestReadNodes(t *testing.T) {
	h := newHouse(t, node("n2", 500), node("n1", 1000), node("n3", 10))
	h.hear(h.requested("j1", 1, quota(600, 100)))
	var list struct {
		Items []nodeBody `json:"items"`
		Next  string     `json:"next_cursor"`
	}
	if code := h.call("acme", "GET", "/nodes?limit=2", "", &list); code != 200 || len(list.Items) != 2 || list.Next == "" {
		t.Fatalf("%d %+v", code, list)
	}
	if n := list.Items[0]; n.ID != "n1" || n.Free != quota(400, 900) || n.Total != quota(1000, 1000) || n.Assignments != 1 || n.Offer == "" || n.State != "READY" || n.Provider != "process" {
		t.Errorf("%+v", n)
	}
	if code := h.call("acme", "GET", "/nodes?limit=2&cursor="+list.Next, "", &list); code != 200 || len(list.Items) != 1 || list.Items[0].ID != "n3" || list.Next != "" {
		t.Errorf("%d %+v", code, list)
	}
	var one nodeBody
	if code := h.call("acme", "GET", "/nodes/n2", "", &one); code != 200 || one.ID != "n2" {
		t.Errorf("%d %+v", code, one)
	}
	if code := h.call("acme", "GET", "/nodes/n9", "", nil); code != 404 {
		t.Errorf("a node that is not there: %d", code)
	}
}

func TestExplainOverHTTP(t *testing.T) {
	h := newHouse(t, node("n1", 1000), node("n2", 1000), node("n3", 100))
	for i := range 4 {
		h.hear(h.requested(fmt.Sprint("j", i), 1, quota(800, 100)))
	}
	var got explanation
	if code := h.call("acme", "GET", "/jobs/j3/explain", "", &got); code != 200 || got.State != Pending || got.Position != 2 || len(got.Reasons) != 3 {
		t.Fatalf("%d %+v", code, got)
	}
	want := "waits since 2026-11-24T10:00:00Z, number 2 of 2 in the queue: n1 and 1 other: 200 cpu_m free, 800 asked; n3: 100 cpu_m in all, 800 asked"
	if got.Text != want {
		t.Errorf("got  %q\nwant %q", got.Text, want)
	}
	for _, path := range []string{"/jobs/none/explain", "/jobs/j9/explain"} {
		if code := h.call("acme", "GET", path, "", nil); code != 404 {
			t.Errorf("%s: %d", path, code)
		}
	}
	if code := h.call("other", "GET", "/jobs/j3/explain", "", nil); code != 404 {
		t.Errorf("a foreign job: %d", code)
	}
}
