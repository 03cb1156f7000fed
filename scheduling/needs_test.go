package scheduling

import (
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
)

func TestExplainWhatAJobNeeds(t *testing.T) {
	h := newHouse(t, node("n1", 1000))
	began := event.RunStarted.Event(h.about("run_1", 1), event.RunMoved{Run: "run_1", Jobs: []event.RunJob{
		{Job: "j1", Name: "build"}, {Job: "j2", Name: "lint"}, {Job: "j3", Name: "test", Needs: []string{"build", "lint"}},
		{Job: "j4", Name: "ship", Needs: []string{"test"}},
	}})
	h.hear(began, h.requested("j1", 1, quota(300, 1)), h.requested("j2", 1, quota(900, 1)))
	waits := func(job string, want ...string) {
		t.Helper()
		var got explanation
		if code := h.call("acme", "GET", "/jobs/"+job+"/explain", "", &got); code != 200 || got.State != Pending {
			t.Fatalf("%s: %d %+v", job, code, got)
		}
		for _, w := range want {
			if !strings.Contains(got.Text, w) {
				t.Errorf("%s: %q does not say %q", job, got.Text, w)
			}
		}
	}
	waits("j3", "build (j1): on node n1", "lint (j2): waits since", "700 cpu_m free, 900 asked")
	waits("j4", "test (j3): waits for others itself")
	if code := h.call("other", "GET", "/jobs/j3/explain", "", nil); code != 404 {
		t.Errorf("another tenant is answered %d", code)
	}
	h.restart(node("n1", 1000))
	waits("j3", "build (j1): on node n1")
	h.hear(event.RunEnded.Event(h.about("run_1", 1), event.RunMoved{Run: "run_1"}))
	if got := (explanation{}); h.call("acme", "GET", "/jobs/j4/explain", "", &got) != 200 || got.State != Revoked || !strings.Contains(got.Text, "run ended") {
		t.Errorf("%+v", got)
	}
	h.pass(31 * 24 * time.Hour)
	if err := h.reconcile(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if code := h.call("acme", "GET", "/jobs/j4/explain", "", nil); code != 404 {
		t.Errorf("what ended long ago is answered %d", code)
	}
}
