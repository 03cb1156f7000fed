package execution

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/internal/httpapi/apitest"
)

// noting permits all, and notes what it was asked about.
type noting struct {
	apitest.Permit
	mu    sync.Mutex
	asked []string
}

func (n *noting) Decide(ctx context.Context, q authz.Question) authz.Answer {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, q.Action+" "+q.Resource.ID)
	return n.Permit.Decide(ctx, q)
}

// TestTheTrailNamesTheWorkerWhereThereIsNoJob has a command run on a worker without one.
func TestTheTrailNamesTheWorkerWhereThereIsNoJob(t *testing.T) {
	n := &noting{}
	b := newBench(t, func(c *Config) { c.Decider = n })
	b.lend()
	var x Execution
	if code := b.call("/exec", map[string]any{"step_id": "mine", "worker_id": "wrk_2", "command": []string{"ls"}}, &x); code != http.StatusCreated {
		t.Fatalf("%d", code)
	}
	b.w.end(x.ID)
	if code := b.call("/complete", map[string]any{"exec_id": x.ID}, nil); code != http.StatusOK {
		t.Fatalf("%d", code)
	}
	if want := []string{"Job::execute worker/wrk_2", "Job::execute worker/wrk_2"}; !slices.Equal(n.asked, want) {
		t.Errorf("asked about %q", n.asked)
	}
}
