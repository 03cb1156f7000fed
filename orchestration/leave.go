package orchestration

import (
	"context"
	"slices"
	"sync"
	"time"

	"fragua.dev/fragua/contract/ident"
)

// leaveTime is how long an answer that calls running jobs off waits for their workers to
// be gone: who reads it may count on nothing beginning any more. A step that takes its time
// to end does so after the answer.
const leaveTime = 150 * time.Millisecond

// leaving are those who wait for the workers of jobs to be gone.
type leaving struct {
	mu  sync.Mutex
	who map[jobKey][]chan struct{}
}

// watch returns what is closed when a worker of the job is gone. It is asked for before
// that can happen, and given back with forget.
func (l *leaving) watch(t ident.Tenant, id ident.Job) (gone <-chan struct{}, forget func()) {
	k, c := jobKey{t, id}, make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.who == nil {
		l.who = map[jobKey][]chan struct{}{}
	}
	l.who[k] = append(l.who[k], c)
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.who[k] = slices.DeleteFunc(l.who[k], func(other chan struct{}) bool { return other == c })
		if len(l.who[k]) == 0 {
			delete(l.who, k)
		}
	}
}

// gone tells those who wait that a worker of the job is gone.
func (l *leaving) gone(t ident.Tenant, id ident.Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.who[jobKey{t, id}] {
		close(c)
	}
	delete(l.who, jobKey{t, id})
}

// left waits until all have gone, for leaveTime at most.
func left(ctx context.Context, all []<-chan struct{}) {
	late := time.NewTimer(leaveTime)
	defer late.Stop()
	for _, gone := range all {
		select {
		case <-gone:
		case <-late.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
