package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

var (
	marks  = map[string]string{"SUCCEEDED": "✓", "FAILED": "✗", "CANCELLED": "–", "TERMINATED": "!", "RUNNING": "●", "SCHEDULED": "○", "PENDING": "·", "COMPLETED": "✓", "STARTED": "●", "SKIPPED": "–"}
	colors = map[string]string{"SUCCEEDED": "32", "COMPLETED": "32", "FAILED": "31", "TERMINATED": "35", "CANCELLED": "33", "RUNNING": "36", "STARTED": "36", "SKIPPED": "90", "PENDING": "90", "SCHEDULED": "90"}
)

func (r *follower) paint(state, text string) string {
	if r.screen == nil || r.screen.plain {
		return text
	}
	return "\x1b[" + colors[state] + "m" + text + "\x1b[0m"
}

func round(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// fit shows the run in at most so many lines, the more the more there is room for.
func (r *follower) fit(lines int) []string {
	var tree []string
	for _, v := range []view{
		{tail: tailShown}, {tail: 2}, {tail: 1},
		{tail: tailShown, fold: true}, {tail: 2, fold: true}, {tail: 1, fold: true}, // what runs goes before what has ended well
		{fold: true}, {fold: true, shut: true},
	} {
		if tree = r.tree(v); len(tree) <= lines {
			return tree
		}
	}
	return append(tree[:max(0, lines-1)], "  …")
}

// view is how much of a run is shown.
type view struct {
	tail int  // lines of the log of a step that runs, or has failed
	fold bool // only jobs at work and failed ones, the others counted
	shut bool // no steps either
	last bool // the run has ended: what failed stands at the end, where the eye is
}

// tree shows the run's jobs: those that succeeded in one line, those that failed
// with all that is known.
func (r *follower) tree(v view) []string {
	title := r.name + "  " + round(time.Since(r.began))
	if r.note != "" {
		title += "  " + r.note
	}
	lines := []string{title}
	folded := map[string]int{}
	var failed []string
	for _, id := range r.order {
		f := r.jobs[id]
		switch s := f.view.State; {
		case v.fold && s != "RUNNING" && s != "FAILED" && s != "TERMINATED":
			folded[s]++
		case v.last && (s == "FAILED" || s == "TERMINATED"):
			failed = append(failed, r.branch(f, v)...)
		default:
			lines = append(lines, r.branch(f, v)...)
		}
	}
	lines = append(lines, failed...)
	for _, s := range []string{"SUCCEEDED", "SCHEDULED", "PENDING", "CANCELLED"} {
		if n := folded[s]; n > 0 {
			lines = append(lines, "  "+r.paint(s, fmt.Sprintf("%s %d %s", marks[s], n, strings.ToLower(s))))
		}
	}
	return lines
}

// branch shows one job.
func (r *follower) branch(f *followed, v view) []string {
	j := f.view
	took := ""
	if j.Started != nil {
		end := time.Now()
		if j.Finished != nil {
			end = *j.Finished
		}
		took = "  " + round(end.Sub(*j.Started))
	}
	if j.Attempts > 1 {
		took += fmt.Sprintf("  (attempt %d)", j.Attempts)
	}
	if j.State == "PENDING" && f.waits != "" {
		took += "  waits for a place: " + printable(f.waits)
	}
	lines := []string{"  " + r.paint(j.State, marks[j.State]+" "+printable(j.Name)) + took + tried(j) + why(j)}
	if v.shut || j.State != "RUNNING" && j.State != "FAILED" && j.State != "TERMINATED" {
		return lines
	}
	for _, s := range j.Steps {
		if s.State == "PENDING" || s.State == "SKIPPED" {
			continue
		}
		took := ""
		if s.State != "STARTED" {
			took = "  " + round(time.Duration(s.Duration)*time.Millisecond)
		}
		lines = append(lines, "      "+r.paint(s.State, marks[s.State]+" "+printable(s.Name))+took)
		if t := f.logs[s.Exec]; t != nil && s.State != "COMPLETED" {
			for _, l := range t.last(v.tail) {
				lines = append(lines, "        "+r.paint("SKIPPED", "│")+" "+l)
			}
		}
	}
	return lines
}

// tried says of a job which of its steps ended only after further tries.
func tried(j jobView) string {
	text := ""
	for _, s := range j.Steps {
		if s.Try > 1 {
			text += fmt.Sprintf("  (%s: try %d)", printable(s.Name), s.Try)
		}
	}
	return text
}

// why says why a job did not succeed: by its own step, or by the platform.
func why(j jobView) string {
	switch {
	case j.Failure == nil || j.State == "SUCCEEDED" || j.State == "RUNNING":
		return ""
	case j.State == "TERMINATED" || j.Failure.Code == "lost":
		return ": the platform failed, not the job: " + printable(j.Failure.Message)
	}
	for _, s := range j.Steps {
		if s.State == "FAILED" && len(j.Steps) > 1 {
			return ": in step " + printable(s.Name) + ": " + printable(j.Failure.Message)
		}
	}
	return ": " + printable(j.Failure.Message)
}

// summary ends what is shown: how the run went, and how to look deeper.
// deeperInto is the command that shows why a job failed: its log, if it has one.
func deeperInto(j jobView) string {
	if slices.ContainsFunc(j.Steps, func(s stepView) bool { return s.Exec != "" }) {
		return "fragua job logs " + j.ID
	}
	return "fragua job get " + j.ID
}

func (r *follower) summary(state string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	count := map[string]int{}
	undone, left := 0, 0
	var deeper []string
	for _, id := range r.order {
		j := r.jobs[id].view
		switch {
		case j.Undoes == "":
			count[j.State]++
		case j.State == "SUCCEEDED":
			undone++
		default:
			left++
		}
		if j.State == "FAILED" || j.State == "TERMINATED" {
			deeper = append(deeper, "  "+deeperInto(j)+r.hint+"  # "+printable(j.Name))
		}
	}
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	for _, s := range []string{"SUCCEEDED", "FAILED", "TERMINATED", "CANCELLED"} {
		add(count[s], strings.ToLower(s))
	}
	add(undone, "undone")
	add(left, "not undone")
	if r.screen != nil {
		r.screen.draw(r.tree(view{tail: tailLines, last: true}), true)
	}
	fmt.Fprintf(r.out, "%s %s %s in %s: %s\n", r.paint(state, marks[state]), r.name, strings.ToLower(state), round(time.Since(r.began)), strings.Join(parts, ", "))
	if len(deeper) > 5 {
		deeper = append(deeper[:5], "  …")
	}
	if deeper == nil {
		deeper = []string{"  fragua pipeline status " + r.id + r.hint}
	}
	fmt.Fprintf(r.out, "look deeper:\n%s\n", strings.Join(deeper, "\n"))
}
