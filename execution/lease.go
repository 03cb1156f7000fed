package execution

import (
	"context"
	"errors"
	"sync"
	"time"
)

// maySilent is how many signs of life in a row a worker may leave without an answer:
// one that has not answered by then was stopped, or is cut off. Its job is lost, and the
// worker room ends it before that is begun anew.
const maySilent = 3

var errSilent = errors.New("its worker does not answer any more: it was stopped, or is cut off")

// keepAlive renews a worker's lease until it is stopped: the calls of a step that
// runs for long lie far apart. A worker that has fallen silent is told of once, by
// silent, and is renewed no more.
func keepAlive(ctx context.Context, agent Agent, silent context.CancelCauseFunc) (stop func()) {
	var (
		t      *time.Timer
		mu     sync.Mutex
		over   bool
		failed int
	)
	mu.Lock()
	defer mu.Unlock()
	t = time.AfterFunc(renewEvery, func() {
		ctx, cancel := context.WithTimeout(ctx, renewEvery) // a machine may be very busy
		_, err := agent.Lease(ctx)
		cancel()
		mu.Lock()
		defer mu.Unlock()
		if failed++; err == nil {
			failed = 0
		}
		switch {
		case over:
		case failed == maySilent:
			silent(errSilent)
		default:
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
