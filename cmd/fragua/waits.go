package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
)

const (
	waitsLong = 3 * time.Second // without a place, after which the reason is told
	askEvery  = 4 * time.Second
	askTime   = time.Second // for one answer
	mostAsked = 3           // jobs at one time: those behind them mostly wait for the same
)

// askWhy asks the server why jobs have been waiting for a place for so long.
func (r *follower) askWhy(ctx context.Context, run runView, now time.Time) {
	if now.Sub(r.asked) < askEvery {
		return
	}
	waiting := r.waiting(run, now)
	if len(waiting) == 0 {
		return
	}
	r.asked = now
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	for _, id := range waiting {
		var x explainView
		if err := r.c.Call(ctx, "GET", "/jobs/"+url.PathEscape(id)+"/explain", nil, &x); err != nil {
			continue // it is placed meanwhile, or the server does not know: the run goes on either way
		}
		r.mu.Lock()
		r.jobs[id].waits = x.why()
		r.mu.Unlock()
	}
}

// waiting returns the first of the jobs that wait for a place for long: all that they
// need is there.
func (r *follower) waiting(run runView, now time.Time) (ids []string) {
	state := map[string]string{}
	for _, j := range run.Jobs {
		state[j.Name] = j.State
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range run.Jobs {
		f := r.jobs[j.ID]
		if f == nil || f.view.State != "PENDING" || slices.ContainsFunc(j.Needs, func(n string) bool { return state[n] != "SUCCEEDED" }) {
			continue
		}
		if f.pending.IsZero() {
			f.pending = now
		}
		if now.Sub(f.pending) >= waitsLong && len(ids) < mostAsked {
			ids = append(ids, j.ID)
		}
	}
	return ids
}

// explainView is what the command line reads of an explanation.
type explainView struct {
	Position int    `json:"position"` // in the queue; 0 when it does not wait there
	Text     string `json:"text"`
	Reasons  []struct {
		Node   string `json:"node_id"`
		Reason string `json:"reason"`
	} `json:"reasons"`
}

// why is the explanation in a few words: what the first node says, and how many more
// there are. A job that is about to be tried again waits for no place yet.
func (x explainView) why() string {
	switch {
	case x.Position == 0:
		return ""
	case len(x.Reasons) == 0:
		return x.Text
	}
	text := x.Reasons[0].Node + ": " + x.Reasons[0].Reason
	if more := len(x.Reasons) - 1; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// sayWaits tells why a job waits, once for each reason: numbers in it come and go.
// r.mu is held.
func (r *follower) sayWaits(ctx context.Context, f *followed) {
	if f.waits == "" || f.view.State != "PENDING" {
		return
	}
	reason := strings.Map(func(c rune) rune {
		if unicode.IsDigit(c) {
			return -1
		}
		return c
	}, f.waits)
	if f.said[reason] {
		return
	}
	f.said[reason] = true
	r.say(ctx, f, "waits for a place: "+printable(f.waits))
}
