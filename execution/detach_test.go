package execution

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/artifacts"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

// vault has one secret, until it is emptied.
type vault struct{ empty *atomic.Bool }

func (v vault) Reveal(_ context.Context, _ ident.Tenant, names []string) (map[string]string, error) {
	if v.empty.Load() {
		return nil, fmt.Errorf("%w: %s", artifacts.ErrNoSecret, names[0])
	}
	return map[string]string{names[0]: "hunter22x"}, nil
}

// TestACommandOnAJobsWorkerShowsNoSecretOfTheJob runs one as POST /exec does, and takes it
// up after a restart.
func TestACommandOnAJobsWorkerShowsNoSecretOfTheJob(t *testing.T) {
	dir, empty := t.TempDir(), &atomic.Bool{}
	synctest.Test(t, func(t *testing.T) {
		in := func(c *Config) { c.Dir, c.Vault = dir, vault{empty} }
		b := newBench(t, in)
		b.start(spec.Job{Command: []string{"make"}, SecretRefs: []string{"TOKEN"}})
		b.hear(event.StepStarted.Subject)
		asked := func(step string) {
			t.Helper()
			synctest.Wait()
			all := b.w.requests()
			if q := all[len(all)-1]; string(q.Step) != step || !slices.Equal(q.Hidden, []string{"hunter22x"}) || q.Secrets != nil || q.Env != nil {
				t.Errorf("the worker was asked %+v", q)
			}
		}
		var x Execution
		if code := b.call("/exec", map[string]any{"step_id": "mine", "job_id": "job_1", "command": []string{"cat", ".npmrc"}}, &x); code != http.StatusCreated {
			t.Fatalf("%d", code)
		}
		asked("mine")
		b.Close()
		b = newBench(t, in) // with a worker that has not been asked yet
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error)
		go func() { over <- b.Run(ctx) }()
		synctest.Wait()
		i := slices.IndexFunc(b.w.requests(), func(q agentapi.ExecRequest) bool { return q.Step == "mine" })
		if i < 0 || !slices.Equal(b.w.requests()[i].Hidden, []string{"hunter22x"}) {
			t.Errorf("after a restart the worker was asked %+v", b.w.requests())
		}
		empty.Store(true)
		b.w.mu.Lock()
		b.w.ignorant = true
		b.w.mu.Unlock()
		if code := b.call("/exec", map[string]any{"step_id": "other", "job_id": "job_1", "command": []string{"cat", ".npmrc"}}, nil); code != http.StatusCreated {
			t.Fatalf("%d", code)
		}
		d, _ := event.StepFailed.Read(b.hear(event.StepFailed.Subject))
		if d.Step != "other" || d.Code != codeSecret || len(b.w.requests()) != 2 {
			t.Errorf("of a secret that is not known: %+v, %d requests", d, len(b.w.requests()))
		}
		cancel()
		<-over
		b.Close()
	})
}
