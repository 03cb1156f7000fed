package orchestration

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/httpapi/apitest"
	"fragua.dev/fragua/internal/sqldb"
)

// TestWakesAfterTheCommit sees to it that the reconciler, which reads what is
// committed, is not woken for what is not.
func TestWakesAfterTheCommit(t *testing.T) {
	r, err := Open(t.Context(), Config{Dir: t.TempDir(), Now: time.Now, IDs: ident.NewSource(time.Now), Log: slog.New(slog.DiscardHandler), Decider: apitest.Permit{}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	retrying := false
	r.DB().OnCommit(func(rows []sqldb.Row) {
		for _, row := range rows {
			retrying = retrying || row.Event.Subject == event.JobRetrying.Subject
		}
		if len(r.soon) > 0 {
			t.Error("woken before the commit")
		}
	})
	ctx := authz.With(t.Context(), authz.Principal{Sub: "ann", Tenant: "acme"})
	j, _, err := r.createJob(ctx, order{Spec: spec.Job{Command: []string{"false"}, Retries: 1, RetryBackoffMS: 100}})
	if err != nil {
		t.Fatal(err)
	}
	e := event.Event{Tenant: "acme"}
	for what, err := range map[string]error{
		"assigned": r.assigned(ctx, e, event.Assignment{Job: j.ID, Attempt: 1, Node: "n1"}),
		"ready":    r.workerReady(ctx, e, event.WorkerMade{Job: j.ID, Attempt: 1, Worker: "w1"}),
		"failed": r.stepFailed(ctx, e, event.StepFault{
			Step: j.Steps[0].ID, Job: j.ID, Attempt: 1, Try: 1, Code: "exit", Retryable: true, Last: true, At: time.Now()}),
	} {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	if !retrying || len(r.soon) != 1 {
		t.Errorf("retrying %v, woken %d times", retrying, len(r.soon))
	}
}

// TestAStepThatTookNoTimeSaysSo shows how long a step took once it has ended, also
// if that was less than a millisecond.
func TestAStepThatTookNoTimeSaysSo(t *testing.T) {
	j := &job{Job: Job{Steps: []Step{{ID: "stp_1", State: stepPending}}}}
	show := func() string {
		b, err := json.Marshal(j.Steps[0])
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if s := show(); strings.Contains(s, "duration_ms") {
		t.Errorf("before it began: %s", s)
	}
	j.stepEnded(0, 1, "exe_1", stepCompleted, spec.ExecResult{}, 0, time.Now(), "", "")
	if s := show(); !strings.Contains(s, `"duration_ms":0`) || !strings.Contains(s, `"exit_code":0`) {
		t.Errorf("ended: %s", s)
	}
}
