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
// called off in it, also after a restart.
func TestTheWaitBeforeAFurtherTryEndsWithItsJob(t *testing.T) {
	for _, c := range []struct {
		name           string
		limit          int64
		cancel, anew   bool
		code           string
		atLeast, below time.Duration
	}{
		{"timeout", 1000, false, false, codeDeadline, time.Second, 1100 * time.Millisecond},
		{"cancel", 60_000, true, false, agentapi.CodeCancel, time.Second, 1100 * time.Millisecond},
		{"timeout after a restart", 1000, false, true, codeDeadline, time.Second, 1100 * time.Millisecond},
	} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			in := func(cfg *Config) { cfg.Dir = dir }
			b, from := newBench(t, in), time.Now()
			b.w.fails = true
			b.w.end("exe_1_1_1")
			b.start(spec.Job{TimeoutMS: c.limit, Steps: []spec.Step{{Name: "x", Run: "exit 3", Retries: 1, RetryBackoffMS: 20_000}}})
			first, _ := event.StepFailed.Read(b.hear(event.StepFailed.Subject))
			if first.Exec != "exe_1_1_1" || first.Last || first.Result.ExitCode != 3 {
				t.Fatalf("%s: the first try: %+v", c.name, first)
			}
			if c.anew {
				synctest.Wait()
				b.Close()
				time.Sleep(time.Second)
				b = newBench(t, in)
				b.start(spec.Job{TimeoutMS: c.limit, Steps: []spec.Step{{Name: "x", Run: "exit 3"}}})
			} else {
				b.mu.Lock()
				b.said = nil
				b.mu.Unlock()
			}
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
			if n := len(b.w.requests()); !c.anew && n != 1 || c.anew && n != 0 {
				t.Errorf("%s: the worker was asked %d times", c.name, n)
			}
			b.Close()
		})
	}
}
