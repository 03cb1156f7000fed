package main

import (
	"context"
	"fmt"
)

// Where there is no screen, what happens is told line by line, in the order in which it
// happened. Each job has a story. What a look finds is put to its end, and told after all
// that was there before; first of all a story waits for the ends of those of the jobs
// that had ended when its own began.

// story is how far a job has been told.
type story struct {
	told    chan struct{}   // closed when all that is in it is told
	end     chan struct{}   // closed when the job's end is told
	begun   bool            // what it comes after is in it
	over    bool            // the job's end is in it
	attempt int             // which is being told
	fault   string          // what its last execution failed of
	said    map[string]bool // states of attempts, and reasons to wait, that are in it
}

func newStory() story {
	told := make(chan struct{})
	close(told) // nothing goes before its beginning
	return story{told: told, end: make(chan struct{}), attempt: 1, said: map[string]bool{}}
}

// then puts something to the end of a job's story; r.mu is held.
func (r *follower) then(ctx context.Context, f *followed, next func()) {
	last, told := f.told, make(chan struct{})
	f.told = told
	r.wg.Go(func() {
		defer close(told)
		select {
		case <-last:
		case <-ctx.Done():
		}
		if ctx.Err() == nil {
			next()
		}
	})
}

// say puts a line to the end of a job's story; r.mu is held.
func (r *follower) say(ctx context.Context, f *followed, text string) {
	line := printable(f.view.Name) + ": " + text
	r.then(ctx, f, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		fmt.Fprintln(r.out, line)
	})
}

// missing says whether something of a job may have come and gone between two looks: an
// attempt, or a try of a step.
func (r *follower) missing(j jobView) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.jobs[j.ID]
	if f == nil {
		f = newFollowed()
	}
	if j.Attempts > f.attempt {
		return true
	}
	for _, s := range j.Steps {
		if s.Try > 1 && f.logs[s.Exec] == nil {
			return true
		}
	}
	return false
}

// news puts what a look has found to the end of a job's story: how the job stands, and
// before that what was missed of it. r.mu is held.
func (r *follower) news(ctx context.Context, f *followed, missed []execView) {
	v := f.view
	if f.over {
		return
	}
	if !f.begun && (v.Started != nil || v.Attempts > 1 || ended(v.State)) {
		f.begun = true
		for _, g := range r.before(f) {
			r.then(ctx, f, func() {
				select {
				case <-g.end:
				case <-ctx.Done():
				}
			})
		}
	}
	for _, x := range missed {
		for _, s := range v.Steps {
			if s.ID == x.Step && x.Attempt <= v.Attempts { // else the next look tells it
				r.ran(ctx, f, x.Attempt, s.Name, x.Exec)
				if x.Attempt == f.attempt {
					f.fault = x.Message
				}
			}
		}
	}
	r.reach(ctx, f, v.Attempts)
	for _, s := range v.Steps {
		if s.Exec != "" {
			r.ran(ctx, f, v.Attempts, s.Name, s.Exec)
		}
	}
	if v.State == "RUNNING" {
		r.running(ctx, f)
	}
	if ended(v.State) {
		f.over = true
		r.say(ctx, f, v.State+tried(v)+why(v))
		r.then(ctx, f, func() { close(f.end) })
	}
}

// before returns the jobs whose ends are told before a job: those that had ended when it
// began. What was cancelled before it began comes after those that had begun, since it may
// be for one of them.
func (r *follower) before(f *followed) (all []*followed) {
	for _, g := range r.jobs {
		if g == f || !ended(g.view.State) || g.view.Finished == nil {
			continue
		}
		end := *g.view.Finished
		switch began := f.view.Started; {
		case began != nil && !end.Before(*began):
		case began == nil && f.view.Finished != nil && (g.view.Started == nil || end.After(*f.view.Finished)):
		default: // also when it is about to be tried again: then it is not known any more when it began
			all = append(all, g)
		}
	}
	return all
}

// ran tells the log of a step, unless it has been told; r.mu is held.
func (r *follower) ran(ctx context.Context, f *followed, attempt int, step, exec string) {
	if f.logs[exec] != nil {
		return
	}
	r.reach(ctx, f, attempt)
	r.running(ctx, f)
	r.then(ctx, f, r.log(ctx, f, step, exec))
}

// running tells that an attempt runs, once; r.mu is held.
func (r *follower) running(ctx context.Context, f *followed) {
	now := fmt.Sprint("RUNNING", f.attempt)
	if !f.said[now] {
		f.said[now] = true
		r.say(ctx, f, "RUNNING")
	}
}

// reach tells of the attempts before one why they were not the last; r.mu is held.
func (r *follower) reach(ctx context.Context, f *followed, attempt int) {
	for f.attempt < attempt {
		f.attempt++
		text := ""
		if v := f.view; f.attempt == v.Attempts && !ended(v.State) {
			v.State = "PENDING" // it was, if only between two looks
			text = why(v)
		} else if f.fault != "" {
			text = ": " + printable(f.fault)
		}
		f.fault = ""
		r.say(ctx, f, "PENDING"+text)
	}
}
