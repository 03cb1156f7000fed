// Package presence tells a room how long nobody was at work before it: time in which the
// platform was away is not time that its jobs took.
package presence

import (
	"os"
	"sync"
	"time"
)

// each is how often a sign of life is given: the absence may be told so much too long.
const each = time.Second

// A Presence is a file that is touched for as long as somebody is at work.
type Presence struct {
	Since time.Time     // when it began
	Away  time.Duration // for how long nobody had been there before; 0 where nobody ever had

	file string
	now  func() time.Time
	end  func()
	wg   sync.WaitGroup
}

// Open begins to touch file, which only one process at a time does.
func Open(file string, now func() time.Time) (*Presence, error) {
	ended := make(chan struct{})
	p := &Presence{Since: now(), file: file, now: now, end: sync.OnceFunc(func() { close(ended) })}
	if info, err := os.Stat(file); err == nil {
		p.Away = max(0, p.Since.Sub(info.ModTime())) // a clock may have been set back
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	f.Close() // nothing was written
	p.touch()
	p.wg.Go(func() {
		t := time.NewTicker(each)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				p.touch()
			case <-ended:
				p.touch()
				return
			}
		}
	})
	return p, nil
}

// touch gives a sign of life. One that fails is made up for by the next.
func (p *Presence) touch() {
	at := p.now()
	_ = os.Chtimes(p.file, at, at)
}

// Close gives the last sign of life. It may be called again.
func (p *Presence) Close() {
	p.end()
	p.wg.Wait()
}
