package execution

import (
	"testing"
	"testing/synctest"
	"time"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/spec"
)

// TestTheWaitBeforeAFurtherTryEndsWithItsJob has a job's time run out in it, and has a job
// called off in it.
func TestTheWaitBeforeAFurtherTryEndsWithItsJob(t *testing.T) {
	for _, c := range []struct {
		name           string
		limit          int64
		cancel         bool
		code           string
		atLeast, below time.Duration
	}{
		{"timeout", 1000, false, codeDeadline, time.Second, 1100 * time.Millisecond},
		{"cancel", 60_000, true, agentapi.CodeCancel, time.Second, 1100 * time.Millisecond},
	} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			b, from := newBench(t, func(cfg *Config) { cfg.Dir = dir }), time.Now()
			b.w.fails = true
			b.w.end("exe_1_1_1")
			b.start(spec.Job{TimeoutMS: c.limit, Steps: []spec.Step{{Name: "x", Run: "exit 3", Retries: 1, RetryBackoffMS: 20_000}}})
			first, _ := event.StepFailed.Read(b.hear(event.StepFailed.Subject))
			if first.Exec != "exe_1_1_1" || first.Last || first.Result.ExitCode != 3 {
				t.Fatalf("%s: the first try: %+v", c.name, first)
			}
			b.mu.Lock()
			b.said = nil
			b.mu.Unlock()
			time.AfterFunc(time.Until(from.Add(time.Second)), func() {
				if c.cancel {
					b.Room.call("acme", "job_1", 1, agentapi.CodeCancel, "called off")
				}
			})
			d, _ := event.StepFailed.Read(b.hear(event.StepFailed.Subject))
			if took := time.Since(from); took < c.atLeast || took > c.below {
				t.Errorf("%s: it ended after %v", c.name, took)
			}
			if d.Code != c.code || !d.Last || d.Try != 2 || d.Exec != first.Exec || d.Result.ExitCode != 3 || d.Result.StdoutRef.ExecID != string(first.Exec) || !d.At.Equal(first.At) {
				t.Errorf("%s: %+v", c.name, d)
			}
			if n := len(b.w.requests()); n != 1 {
				t.Errorf("%s: the worker was asked %d times", c.name, n)
			}
			b.Close()
		})
	}
}
