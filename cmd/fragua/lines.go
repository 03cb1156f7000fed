package main

import (
	"context"
	"fmt"
)

// Where there is no screen, what happens is told line by line, in the order in which it
// happened: a step's log after that of the step before it, and all of a job after the
// end of those that had ended when it began.

// placed notes what is told before each job that has begun; r.mu is held.
func (r *follower) placed() {
	for _, f := range r.jobs {
		if f.placed || f.view.Started == nil {
			continue
		}
		f.placed = true
		for _, g := range r.jobs {
			if g != f && g.view.Finished != nil && g.view.Finished.Before(*f.view.Started) {
				f.after = append(f.after, g)
			}
		}
	}
}

// await waits until it is a log's turn: last is closed after the log before it.
func (r *follower) await(ctx context.Context, f *followed, last <-chan struct{}) {
	if !r.plain {
		return
	}
	turns := []<-chan struct{}{last}
	for _, g := range f.after {
		turns = append(turns, g.end)
	}
	for _, turn := range turns {
		select {
		case <-turn:
		case <-ctx.Done():
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sayState(f, "RUNNING")
}

// lines tells what is new, and whose turn it is; r.mu is held.
func (r *follower) lines() {
	for again := true; again; {
		again = false
		for _, id := range r.order {
			again = r.line(r.jobs[id]) || again
		}
	}
}

// line tells how a job stands, and says whether that was news.
func (r *follower) line(f *followed) bool {
	state := f.view.State
	if f.over || state == "SCHEDULED" {
		return false
	}
	if state == "PENDING" {
		r.sayWaits(f)
		return f.view.Attempts > 1 && r.sayState(f, state)
	}
	for _, g := range f.after {
		if !g.over {
			return false
		}
	}
	if !ended(state) {
		return r.sayState(f, state)
	}
	if f.open > 0 || f.view.Started == nil && r.owing(f) {
		return false // its end is told after its last word, and what was cancelled for another after that one
	}
	r.sayState(f, state)
	f.over = true
	close(f.end)
	return true
}

// owing says whether the end of a job that began, and ended before f did, is still to be
// told.
func (r *follower) owing(f *followed) bool {
	for _, g := range r.jobs {
		began := g.view.Started != nil && g.view.Finished != nil && f.view.Finished != nil
		if began && !g.over && !g.view.Finished.After(*f.view.Finished) {
			return true
		}
	}
	return false
}

// sayState prints a job's state, once in each attempt.
func (r *follower) sayState(f *followed, state string) bool {
	now := fmt.Sprint(state, f.view.Attempts)
	if f.said[now] {
		return false
	}
	f.said[now] = true
	text := ""
	if state == f.view.State {
		text = why(f.view)
	}
	fmt.Fprintf(r.out, "%s: %s%s\n", f.view.Name, state, text)
	return true
}
