package execution

import (
	"context"
	"sync"
	"time"
)

// keepAlive renews a worker's lease until it is stopped: the calls of a step that
// runs for long lie far apart.
func keepAlive(ctx context.Context, agent Agent) (stop func()) {
	var (
		t    *time.Timer
		mu   sync.Mutex
		over bool
	)
	mu.Lock()
	defer mu.Unlock()
	t = time.AfterFunc(renewEvery, func() {
		ctx, cancel := context.WithTimeout(ctx, renewEvery/2)
		_, _ = agent.Lease(ctx) // what fails here shows in the calls of the step
		cancel()
		mu.Lock()
		defer mu.Unlock()
		if !over {
			t.Reset(renewEvery)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		t.Stop()
	}
}
