package execution

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/artifacts"
	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/execution/agentclient"
	"fragua.dev/fragua/internal/httpapi/apitest"
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
		stop := b.work()
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
		stop()
		b.Close()
	})
}

// over tells the room that a worker without a job has ended.
func (b *bench) over(w ident.Worker, why string) {
	b.t.Helper()
	about := event.About{Tenant: "acme", Key: string(w), At: time.Now()}
	e := event.WorkerTerminated.Event(about, event.WorkerEnd{Worker: w})
	if why != "" {
		e = event.WorkerFailed.Event(about, event.WorkerLoss{Worker: w, Reason: why})
	}
	for _, s := range b.Subscriptions() {
		if s.Subject == e.Subject {
			if err := s.Handle(b.t.Context(), e); err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

// deciding permits everything, and does something before.
type deciding func()

func (do deciding) Decide(ctx context.Context, q authz.Question) authz.Answer {
	do()
	return apitest.Permit{}.Decide(ctx, q)
}

// TestACommandEndsWithItsWorker has a worker without a job killed or deleted, while a
// command runs on it, before it has taken the command, before the room has begun to give
// it the command, and while the room was away.
func TestACommandEndsWithItsWorker(t *testing.T) {
	const killed = "its process ended: signal: killed"
	for _, c := range []struct {
		name, when, why, want string
	}{
		{"killed while it runs", "runs", killed, killed},
		{"deleted while it runs", "runs", "", workerEnded},
		{"deleted before it was asked", "asks", "", workerEnded},
		{"deleted and refuses", "refuses", "", workerEnded},
		{"deleted before anybody asked", "placed", "", workerEnded},
		{"killed while the room was away", "away", killed, killed},
	} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			var b *bench
			in := func(cfg *Config) {
				cfg.Dir = dir
				if c.when == "placed" { // the decision follows that
					cfg.Decider = deciding(func() { b.over("wrk_2", c.why) })
				}
			}
			b = newBench(t, in)
			b.lend()
			switch c.when {
			case "asks", "placed", "away":
				b.w.gone = true
			case "refuses":
				b.w.exec = func(context.Context) error { return agentclient.ErrRefused }
			}
			if code := b.call("/exec", map[string]any{"step_id": "mine", "worker_id": "wrk_2", "command": []string{"sleep", "600"}}, nil); code != http.StatusCreated {
				t.Fatalf("%s: %d", c.name, code)
			}
			synctest.Wait()
			if c.when == "away" {
				b.Close()
				b = newBench(t, in)
				b.w.gone = true
			}
			b.w.mu.Lock()
			b.w.gone = true
			b.w.mu.Unlock()
			from := time.Now()
			if c.when != "placed" {
				b.over("wrk_2", c.why)
			}
			d, _ := event.StepFailed.Read(b.hear(event.StepFailed.Subject))
			if took := time.Since(from); d.Code != codeLost || d.Message != c.want || took > drain {
				t.Errorf("%s: after %v: %+v", c.name, took, d)
			}
			b.Close()
		})
	}
}
