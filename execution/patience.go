package execution

import (
	"sync"
	"time"
)

// tick is the measure of a patience.
const tick = time.Second

// A patience is what is left of it with somebody who does not answer. It is counted in
// ticks of this process's own: while this process did not run, as it was stopped or its
// machine slept, nobody could answer it, and from then on all is counted anew.
type patience struct {
	now func() time.Time

	mu    sync.Mutex
	t     *time.Timer
	last  time.Time     // the tick before
	spent time.Duration // until then
	over  bool
}

// patient begins to count; stop ends that.
func patient(now func() time.Time) *patience {
	p := &patience{now: now, last: now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.t = time.AfterFunc(tick, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.look()
		if !p.over {
			p.t.Reset(tick)
		}
	})
	return p
}

// look takes note of the time since it was called last; mu is held.
func (p *patience) look() {
	at := p.now()
	if d := at.Sub(p.last); d > 5*tick { // a tick that comes much too late
		p.spent = 0
	} else {
		p.spent += d
	}
	p.last = at
}

// ended says whether all of it is spent.
func (p *patience) ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.look()
	return p.spent > lostAfter
}

// anew has all of it counted from now on: there was an answer.
func (p *patience) anew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spent, p.last = 0, p.now()
}

func (p *patience) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	p.t.Stop()
}
