package execution

import (
	"testing"
	"testing/synctest"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

// TestAnAbsenceIsNoTimeOfTheJobs has nobody at work for longer than a job may take: of an
// attempt that was just going to begin, and of one whose first step ended meanwhile.
func TestAnAbsenceIsNoTimeOfTheJobs(t *testing.T) {
	job := spec.Job{TimeoutMS: 8000, Steps: []spec.Step{{Name: "a", Run: "a"}, {Name: "b", Run: "b"}}}
	for name, begun := range map[string]bool{"about to begin": false, "in its first step": true} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			in := func(cfg *Config) { cfg.Dir = dir }
			b := newBench(t, in)
			d := event.JobStart{Job: "job_1", Worker: "wrk_1", Attempt: 1, Address: "here", Spec: job.Normal(), Steps: []ident.Step{"stp_1", "stp_2"}, Deadline: time.Now().Add(8 * time.Second)}
			e := event.JobStarted.Event(event.About{Tenant: "acme", Key: "job_1", Twist: "1", Correlation: "cor", At: time.Now()}, d)
			if begun {
				if err := b.started(t.Context(), e, d); err != nil {
					t.Fatal(err)
				}
				b.hear(event.StepStarted.Subject)
			}
			b.Close()
			time.Sleep(12 * time.Second)
			b = newBench(t, in)
			b.w.end("exe_1_1_1")
			b.w.end("exe_2_1_1")
			stop := b.work()
			if !begun {
				if err := b.started(t.Context(), e, d); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			time.Sleep(time.Minute)
			stop()
			b.Close()
			b.mu.Lock()
			defer b.mu.Unlock()
			ends := 0
			for _, e := range b.said {
				switch e.Subject {
				case event.StepFailed.Subject:
					t.Errorf("%s: %s", name, e.Data)
				case event.StepCompleted.Subject:
					ends++
				}
			}
			if ends != 2 {
				t.Errorf("%s: %d of 2 steps ended well", name, ends)
			}
			for _, r := range b.w.requests() {
				if r.TimeoutMS > 8000 {
					t.Errorf("%s: %s may take %d ms", name, r.Step, r.TimeoutMS)
				}
			}
		})
	}
}
