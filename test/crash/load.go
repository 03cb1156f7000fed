package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"fragua.dev/fragua/contract/spec"
)

// Every step writes down itself that it runs, and that it came to its end.
const (
	began = `echo "start $FRAGUA_ATTEMPT $FRAGUA_STEP_ID" >> "$MARKS/$FRAGUA_JOB_ID"` + "\n"
	over  = "\n" + `echo "end $FRAGUA_ATTEMPT $FRAGUA_STEP_ID" >> "$MARKS/$FRAGUA_JOB_ID"`
)

// A kind is one sort of job. Its scripts are the steps.
type kind struct {
	name    string
	weight  int
	scripts []string
	retries int
	tries   int
	limitMS int64 // of each step
	ends    []string
	cancel  bool // a moment after it was accepted
}

var kinds = []kind{
	{name: "true", weight: 6, scripts: []string{"true"}, retries: 2, ends: []string{"SUCCEEDED"}},
	{name: "once", weight: 5, scripts: []string{"sleep 0.7"}, ends: []string{"SUCCEEDED"}},
	{name: "sleep", weight: 4, scripts: []string{"sleep 0.4"}, retries: 3, ends: []string{"SUCCEEDED"}},
	{name: "steps", weight: 4, scripts: []string{"sleep 0.1", "true", "sleep 0.2", "echo four"}, retries: 2, ends: []string{"SUCCEEDED"}},
	{name: "fails", weight: 3, scripts: []string{"sleep 0.1; exit 3"}, retries: 2, ends: []string{"FAILED"}},
	{name: "fails-once", weight: 1, scripts: []string{"true", "exit 1"}, ends: []string{"FAILED"}},
	{name: "flaky", weight: 3, scripts: []string{`test "$FRAGUA_ATTEMPT" -gt 1`}, retries: 3, ends: []string{"SUCCEEDED"}},
	{name: "flaky-step", weight: 2, scripts: []string{`case "$FRAGUA_STEP_ID" in *.2) true ;; *) exit 1 ;; esac`}, retries: 2, tries: 1, ends: []string{"SUCCEEDED"}},
	{name: "cancelled", weight: 3, scripts: []string{"sleep 60"}, retries: 1, ends: []string{"CANCELLED"}, cancel: true},
	{name: "too-long", weight: 2, scripts: []string{"sleep 60"}, limitMS: 300, ends: []string{"FAILED"}},
	// A grandchild in a session of its own, whose parents have gone.
	{name: "daemon", weight: 3, scripts: []string{"setsid sh -c '(sleep 600 & sleep 600) & sleep 0.02' >/dev/null 2>&1 </dev/null & \n sleep 0.2"}, retries: 2, ends: []string{"SUCCEEDED"}},
	{name: "output", weight: 2, scripts: []string{"seq 1 100000"}, retries: 2, ends: []string{"SUCCEEDED"}},
}

// pick draws a kind by weight.
func pick(r *rand.Rand) kind {
	sum := 0
	for _, k := range kinds {
		sum += k.weight
	}
	n := r.IntN(sum)
	for _, k := range kinds {
		if n -= k.weight; n < 0 {
			return k
		}
	}
	return kinds[0]
}

func (k kind) want() want {
	return want{Kind: k.name, Retries: k.retries, Tries: k.tries, Steps: len(k.scripts), Ends: k.ends}
}

func (k kind) spec(marks string) spec.Job {
	s := spec.Job{
		Resources: spec.Quota{CPUm: 100, MemoryMB: 16}, TimeoutMS: 120_000, Retries: k.retries, RetryBackoffMS: 100,
		Env: map[string]string{"MARKS": marks},
	}
	for i, script := range k.scripts {
		s.Steps = append(s.Steps, spec.Step{
			Name: fmt.Sprintf("step-%d", i+1), Run: began + script + over, TimeoutMS: k.limitMS, Retries: k.tries, RetryBackoffMS: 50,
		})
	}
	return s
}

const (
	loaders = 4
	crowd   = 40                    // accepted jobs that have not ended, at most
	pace    = 60 * time.Millisecond // between two jobs of one loader
	again   = 40 * time.Millisecond // before a call that failed is made again
)

// load submits jobs until stop ends. What it has begun it brings to its end, while
// life lasts: a job that may have been accepted is submitted until it was.
func (c *campaign) load(stop, life context.Context, r *rand.Rand) {
	for stop.Err() == nil {
		if len(c.check.Live()) < crowd {
			c.submit(life, pick(r), time.Duration(r.IntN(800))*time.Millisecond)
		}
		wait(stop, pace)
	}
}

func (c *campaign) submit(ctx context.Context, k kind, patience time.Duration) {
	id := fmt.Sprintf("crash-%d-%05d", c.seed, c.numbers.Add(1))
	body := map[string]any{"job_id": id, "spec": k.spec(c.marks)}
	if !c.insist(ctx, "/jobs", body, http.StatusCreated, http.StatusOK) {
		return
	}
	c.check.Accepted(id, k.want(), time.Now())
	if !k.cancel {
		return
	}
	c.calls.Go(func() {
		wait(ctx, patience)
		c.insist(ctx, "/jobs/"+id+"/cancel", map[string]any{"reason": "the campaign"}, http.StatusOK, http.StatusConflict)
	})
}

// insist makes a call until it is answered with one of the statuses that are
// expected. A status that says that the call itself is wrong is a fault.
func (c *campaign) insist(ctx context.Context, path string, body any, want ...int) bool {
	for ctx.Err() == nil {
		if s := c.server.Load(); s != nil {
			call, cancel := context.WithTimeout(ctx, 10*time.Second)
			status, err := s.Call(call, c.client, http.MethodPost, path, body, nil)
			cancel()
			for _, w := range want {
				if status == w {
					return true
				}
			}
			if status != 0 {
				c.count(fmt.Sprint("status ", status))
			}
			if status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout {
				c.t.Errorf("seed %d: %v", c.seed, err)
				return false
			}
		}
		wait(ctx, again)
	}
	return false
}

// wait waits for d, or for the end of ctx.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// look calls GET path on the server that is up.
func (c *campaign) look(ctx context.Context, path string, out any) (status int, err error) {
	s := c.server.Load()
	if s == nil {
		return 0, errDown
	}
	call, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return s.Call(call, c.client, http.MethodGet, path, nil, out)
}
