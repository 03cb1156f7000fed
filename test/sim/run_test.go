package sim

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

type runView struct {
	RunID    string `json:"run_id"`
	State    string `json:"state"`
	Attempts int    `json:"attempts"`
	Jobs     []struct {
		Name  string `json:"name"`
		Job   string `json:"job_id"`
		State string `json:"state"`
	} `json:"jobs"`
	Undo []struct {
		Name  string `json:"name"`
		By    string `json:"by_job_id"`
		State string `json:"state"`
	} `json:"compensations"`
}

func (v runView) states() map[string]string {
	out := map[string]string{}
	for _, j := range v.Jobs {
		out[j.Name] = j.State
	}
	return out
}

// await waits until a run has ended.
func (h *house) await(id string) (v runView) {
	h.t.Helper()
	for deadline := time.Now().Add(time.Hour); time.Now().Before(deadline); time.Sleep(time.Second) {
		v = runView{}
		if code := h.call("GET", "/runs/"+id, nil, &v); code != 200 {
			h.t.Fatalf("GET /runs: %d", code)
		}
		switch v.State {
		case "SUCCEEDED", "FAILED", "CANCELLED", "TERMINATED":
			return v
		}
	}
	h.t.Fatalf("the run has not ended: %+v", v)
	return v
}

func do(took, how string, needs ...string) map[string]any {
	j := map[string]any{"command": []string{"sim", took, how}, "resources": map[string]any{"cpu_m": 100}}
	if needs != nil {
		j["needs"] = needs
	}
	return j
}

func undoable(j map[string]any, how string) map[string]any {
	j["compensate"] = []map[string]any{{"command": []string{"sim", "300ms", how}}}
	return j
}

func world(t *testing.T, dir string, fn func(h *house)) {
	synctest.Test(t, func(t *testing.T) {
		c := newChecker()
		h := &house{t: t, dir: dir, check: c, m: newMachine(1, false, c), log: slog.New(slog.DiscardHandler)}
		h.open()
		fn(h)
		time.Sleep(time.Minute)
		for _, w := range c.wrong {
			t.Error(w)
		}
		h.crash()
	})
}

func (h *house) start(spec map[string]any) string {
	h.t.Helper()
	var p struct {
		ID string `json:"pipeline_id"`
	}
	if code := h.call("POST", "/pipelines", map[string]any{"spec": spec}, &p); code != 201 {
		h.t.Fatalf("POST /pipelines: %d", code)
	}
	var v runView
	if code := h.call("POST", "/pipelines/"+p.ID+"/runs", nil, &v); code != 201 {
		h.t.Fatalf("POST runs: %d", code)
	}
	return v.RunID
}

func want[T comparable](t *testing.T, what string, got, want map[string]T) {
	t.Helper()
	for k, w := range want {
		if got[k] != w {
			t.Errorf("%s: %s is %v, want %v", what, k, got[k], w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestRunUndoesWhatItDid walks a graph that fails, with crashes on the way: what
// waits for the failure is skipped, what was done is undone, in reverse, once.
func TestRunUndoesWhatItDid(t *testing.T) {
	for crashAt := range 6 {
		t.Run(fmt.Sprintf("crash=%d", crashAt), func(t *testing.T) {
			world(t, t.TempDir(), func(h *house) {
				id := h.start(map[string]any{"name": "p", "jobs": map[string]any{
					"a": undoable(do("100ms", "ok"), "ok"),
					"b": undoable(do("300ms", "ok", "a"), "fail"),
					"c": undoable(do("200ms", "ok", "a"), "ok"),
					"d": do("2s", "fail", "b", "c"),
					"e": do("1s", "ok", "d"),
				}})
				if crashAt > 0 {
					time.Sleep(time.Duration(crashAt) * 550 * time.Millisecond)
					h.crash()
					time.Sleep(time.Second)
					h.open()
				}
				v := h.await(id)
				if v.State != "FAILED" {
					t.Errorf("the run is %s", v.State)
				}
				want(t, "jobs", v.states(), map[string]string{"a": "SUCCEEDED", "b": "SUCCEEDED", "c": "SUCCEEDED", "d": "FAILED", "e": "CANCELLED"})
				var order []string
				for _, u := range v.Undo {
					order = append(order, u.Name+" "+u.State)
				}
				if want := []string{"b FAILED", "c SUCCEEDED", "a SUCCEEDED"}; !slices.Equal(order, want) {
					t.Errorf("undone: %v, want %v", order, want)
				}
				count := map[string]int{}
				h.check.mu.Lock()
				defer h.check.mu.Unlock()
				for _, f := range h.check.facts["acme/"+id] {
					count[f]++
				}
				want(t, "events", count, map[string]int{"RunStarted": 1, "RunEnded": 1, "CompensationRequested": 3, "CompensationCompleted": 2, "CompensationFailed": 1})
				for n, ran := range h.check.ran {
					if len(ran) != 1 {
						t.Errorf("%s ran %d times", n, len(ran))
					}
				}
			})
		})
	}
}

// TestRetryRunsWhatFailedAndWhatNeedsIt keeps what succeeded and was not undone.
func TestRetryRunsWhatFailedAndWhatNeedsIt(t *testing.T) {
	world(t, t.TempDir(), func(h *house) {
		id := h.start(map[string]any{"name": "p", "jobs": map[string]any{
			"a": do("100ms", "ok"), "b": do("100ms", "fail", "a"), "c": do("100ms", "ok", "b"), "d": do("100ms", "ok", "a"),
		}})
		before := h.await(id)
		want(t, "jobs", before.states(), map[string]string{"a": "SUCCEEDED", "b": "FAILED", "c": "CANCELLED", "d": "SUCCEEDED"})
		if code := h.call("POST", "/runs/"+id+"/retry", nil, nil); code != 200 {
			t.Fatalf("retry: %d", code)
		}
		after := h.await(id)
		if after.Attempts != 2 {
			t.Errorf("attempts %d, want 2", after.Attempts)
		}
		for i, j := range after.Jobs {
			if anew := j.Name == "b" || j.Name == "c"; anew == (j.Job == before.Jobs[i].Job) {
				t.Errorf("%s: %s, then %s", j.Name, before.Jobs[i].Job, j.Job)
			}
		}
	})
}

// TestCancelledRunEndsEverything leaves nothing of a run alive.
func TestCancelledRunEndsEverything(t *testing.T) {
	world(t, t.TempDir(), func(h *house) {
		id := h.start(map[string]any{"name": "p", "jobs": map[string]any{
			"a": undoable(do("100ms", "ok"), "ok"), "b": do("1m", "ok", "a"), "c": do("1m", "ok", "b"),
		}})
		time.Sleep(2 * time.Second)
		if code := h.call("POST", "/runs/"+id+"/cancel", map[string]any{"reason": "enough"}, nil); code != 200 {
			t.Fatalf("cancel: %d", code)
		}
		v := h.await(id)
		want(t, "jobs", v.states(), map[string]string{"a": "SUCCEEDED", "b": "CANCELLED", "c": "CANCELLED"})
		if v.State != "CANCELLED" || len(v.Undo) != 0 {
			t.Errorf("%s, %v", v.State, v.Undo)
		}
	})
}

// TestRetryKeepsArtifactsUnderVersionsOfTheirOwn looks at what jobs of a run are
// told to keep, before and after the run is tried again.
func TestRetryKeepsArtifactsUnderVersionsOfTheirOwn(t *testing.T) {
	world(t, t.TempDir(), func(h *house) {
		a := undoable(do("100ms", "ok"), "ok")
		b := do("100ms", "fail", "a")
		b["artifacts"] = []map[string]any{{"name": "left", "path": "x"}, {"name": "given", "version": "1.0", "repository": "r", "path": "x"}}
		id := h.start(map[string]any{"name": "p", "jobs": map[string]any{"a": a, "b": b}})
		for _, version := range []string{id, id + ".2", id + ".3"} {
			v := h.await(id)
			var j struct {
				Spec struct {
					Artifacts []struct{ Repository, Version string }
				}
			}
			if code := h.call("GET", "/jobs/"+v.Jobs[1].Job, nil, &j); code != 200 {
				t.Fatalf("GET /jobs: %d", code)
			}
			if kept := fmt.Sprint(j.Spec.Artifacts); kept != "[{p "+version+"} {r 1.0}]" {
				t.Errorf("%s, want %s", kept, version)
			}
			if code := h.call("POST", "/runs/"+id+"/retry", nil, nil); code != 200 {
				t.Fatalf("retry: %d", code)
			}
		}
		h.await(id)
	})
}

// TestShortBackoffIsKept has jobs fail that are tried again at once: nothing waits
// for the next round of a reconciler.
func TestShortBackoffIsKept(t *testing.T) {
	world(t, t.TempDir(), func(h *house) {
		for i := range 20 {
			job := do("10ms", "fail")
			job["retries"], job["retry_backoff_ms"] = 1, 100
			id := h.start(map[string]any{"name": "p", "jobs": map[string]any{"a": job}})
			v := h.await(id)
			var j struct {
				Attempts int       `json:"attempts"`
				Created  time.Time `json:"created_at"`
				Finished time.Time `json:"finished_at"`
			}
			if code := h.call("GET", "/jobs/"+v.Jobs[0].Job, nil, &j); code != 200 {
				t.Fatalf("GET /jobs: %d", code)
			}
			if took := j.Finished.Sub(j.Created); j.Attempts != 2 || took > time.Second {
				t.Errorf("job %d: %d attempts in %v", i, j.Attempts, took)
			}
		}
	})
}

// TestPlaceThatNobodyUsesComesBack asks for a place for a job that never comes, and
// goes away.
func TestPlaceThatNobodyUsesComesBack(t *testing.T) {
	world(t, t.TempDir(), func(h *house) {
		if code := h.call("POST", "/schedule", map[string]any{"job_id": "nobody", "resources": map[string]any{"cpu_m": 500}}, nil); code != 201 {
			t.Fatalf("schedule: %d", code)
		}
		taken := func() (n int) {
			var nodes struct {
				Items []struct{ Assignments int }
			}
			if code := h.call("GET", "/nodes", nil, &nodes); code != 200 {
				t.Fatalf("nodes: %d", code)
			}
			for _, node := range nodes.Items {
				n += node.Assignments
			}
			return n
		}
		time.Sleep(time.Minute)
		if n := taken(); n != 1 {
			t.Errorf("%d places are taken after a minute", n)
		}
		time.Sleep(6 * time.Minute)
		if n := taken(); n != 0 {
			t.Errorf("%d places are taken after seven minutes", n)
		}
	})
}
