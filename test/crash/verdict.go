package crash

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// slack is how long what was said just before the bus's store was deleted may not
// have been heard.
const slack = 10 * time.Second

// Verdict returns everything that is not as promised, once all is quiet and every
// job has been looked at again. nodes is the capacity, and alive what is left.
func (c *checker) Verdict(nodes []capacity, alive []life) []fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, r := range c.jobs {
		if r.accepted.IsZero() {
			continue // not a promise: the answer was lost, and the job may be there or not
		}
		c.checkEnd(id, r)
		c.checkMarks(id, r)
		c.checkFacts(id, r)
		for _, m := range c.missing(r) {
			c.fault(id, "no event: %s", m)
		}
	}
	for _, l := range alive {
		c.fault(l.Job, "its process %d (%s) of attempt %d is left when all has ended", l.Pid, l.Words, l.Attempt)
	}
	if len(nodes) == 0 {
		c.fault("", "there are no nodes")
	}
	for _, n := range nodes {
		if n.Free != n.Total || n.Taken != 0 {
			c.fault("", "node %s has %+v of %+v free, and %d assignments, when all has ended", n.Node, n.Free, n.Total, n.Taken)
		}
	}
	out := make([]fault, 0, len(c.wrong))
	for f := range c.wrong {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b fault) int {
		return cmp.Or(cmp.Compare(a.Job, b.Job), cmp.Compare(a.Words, b.Words))
	})
	return out
}

// checkEnd holds how a job ended against how it may.
func (c *checker) checkEnd(id string, r *record) {
	v := r.view
	switch {
	case len(r.seen) == 0:
		c.fault(id, "accepted, and not there")
	case !v.ended():
		c.fault(id, "it has not ended: %s in attempt %d", v.State, v.Attempts)
	case v.State == "TERMINATED":
		// Lost by the platform: only where an agent was made to suffer. What happens
		// to the server alone costs no job.
		touched := slices.ContainsFunc(c.touched, func(t span) bool { return t.to.After(v.Created) && t.from.Before(*v.Finished) })
		if !touched {
			c.fault(id, "lost, and no agent was touched while it lived: %v", v.Failure)
		}
	case !slices.Contains(r.want.Ends, v.State):
		c.fault(id, "it ended as %s, want one of %v: %+v", v.State, r.want.Ends, v.Failure)
	}
}

// checkMarks holds what really ran against what may.
func (c *checker) checkMarks(id string, r *record) {
	attempts, starts, finished := map[string]bool{}, map[string]int{}, map[string]bool{}
	for _, m := range r.marks {
		f := strings.Fields(m)
		if len(f) != 3 {
			c.fault(id, "a mark that no step writes: %q", m)
			continue
		}
		switch key := f[1] + " " + f[2]; f[0] {
		case "start":
			attempts[f[1]] = true
			starts[key]++
		case "end":
			if starts[key] == 0 {
				c.fault(id, "step %s of attempt %s ended, and never began", f[2], f[1])
			}
			finished[key] = true
		}
	}
	for key, n := range starts {
		if n > 1 {
			c.fault(id, "attempt and step %s ran %d times", key, n)
		}
	}
	if n := len(attempts); n > r.want.Retries+1 {
		c.fault(id, "it ran in %d attempts with retries: %d", n, r.want.Retries)
	}
	if r.view.State != "SUCCEEDED" {
		return
	}
	if len(r.seen) > 0 && !attempts[fmt.Sprint(r.view.Attempts)] {
		c.fault(id, "attempt %d succeeded, and nothing of it ran", r.view.Attempts)
	}
	last := map[string]bool{} // steps that came to their end in the last attempt
	for key := range finished {
		if attempt, step, _ := strings.Cut(key, " "); attempt == fmt.Sprint(r.view.Attempts) {
			step, _, _ = strings.Cut(step, ".")
			last[step] = true
		}
	}
	if len(last) != r.want.Steps {
		c.fault(id, "it succeeded, and %d of its %d steps came to their end", len(last), r.want.Steps)
	}
}

// checkFacts holds the order and number of a job's events against the table of
// its states.
func (c *checker) checkFacts(id string, r *record) {
	var finals []fact
	requested, started, again := map[int]bool{}, map[int]bool{}, map[int]bool{}
	tries := map[string]string{} // of steps that ended, and the event that said so
	facts := r.facts
	if c.full {
		facts = slices.Clone(facts)
		slices.SortStableFunc(facts, func(a, b fact) int { return a.At.Compare(b.At) })
	}
	for _, f := range facts {
		switch f.Kind {
		case "JobRequested":
			requested[f.Attempt] = true
			if f.Attempt > 1 && !again[f.Attempt-1] && !c.gap(r) {
				c.fault(id, "attempt %d was requested before attempt %d was over", f.Attempt, f.Attempt-1)
			}
		case "JobStarted":
			if !requested[f.Attempt] && !c.gap(r) {
				c.fault(id, "attempt %d started, and was not requested", f.Attempt)
			}
			started[f.Attempt] = true
		case "JobRetrying":
			again[f.Attempt] = true
		case "StepCompleted", "StepFailed":
			try := fmt.Sprintf("%s.%d", f.step(), f.Try)
			if before := tries[try]; before != "" {
				c.fault(id, "the step's try %s ended twice: %s, %s", try, before, f.ID)
			}
			tries[try] = f.ID
		}
		if strings.HasPrefix(f.Kind, "Job") && f.Final {
			finals = append(finals, f)
		}
	}
	for n := range again {
		if r.view.Attempts <= n {
			c.fault(id, "attempt %d was to be followed by another, and it is in attempt %d", n, r.view.Attempts)
		}
	}
	if len(finals) > 1 {
		c.fault(id, "it ended %d times: %v", len(finals), finals)
	}
	for _, f := range finals {
		told := map[string]string{"JobCompleted": "SUCCEEDED", "JobFailed": "FAILED", "JobCancelled": "CANCELLED", "JobTerminated": "TERMINATED"}[f.Kind]
		if told != r.view.State {
			c.fault(id, "it is %s, and its event said %s", r.view.State, told)
		}
		if f.Attempt != r.view.Attempts {
			c.fault(id, "it ended in attempt %d, and its event said %d", r.view.Attempts, f.Attempt)
		}
		if (told == "SUCCEEDED" || told == "FAILED") && !started[f.Attempt] && !c.gap(r) {
			c.fault(id, "attempt %d ended as %s, and never started", f.Attempt, told)
		}
		for _, o := range r.facts {
			if o.Attempt > f.Attempt || o.At.After(f.At) && (o.Kind == "JobRequested" || o.Kind == "JobStarted" || o.Kind == "JobRetrying") {
				c.fault(id, "%s after the end", o.ID)
			}
		}
	}
}

// gap says whether events of a job may have gone with a store of the bus that was
// deleted.
func (c *checker) gap(r *record) bool {
	return slices.ContainsFunc(c.lost, func(at time.Time) bool {
		return r.accepted.Before(at) && (r.view.Finished == nil || r.view.Finished.After(at.Add(-slack)))
	})
}

// missing returns the events that a job's way to its end must have made, and that
// were not heard.
func (c *checker) missing(r *record) []string {
	if !r.view.ended() || c.gap(r) {
		return nil
	}
	have := map[string]bool{}
	for _, f := range r.facts {
		have[fmt.Sprintf("%s %d", f.Kind, f.Attempt)] = true
		if strings.HasPrefix(f.Kind, "Step") {
			have[f.Kind+" "+f.step()] = true
		}
	}
	var out []string
	need := func(key string) {
		if !have[key] {
			out = append(out, key)
		}
	}
	k := r.view.Attempts
	for n := 1; n <= k; n++ {
		if n == 1 || n < k || r.view.State != "CANCELLED" { // a later attempt may be called off before it is asked for
			need(fmt.Sprintf("JobRequested %d", n))
		}
		if n < k {
			need(fmt.Sprintf("JobRetrying %d", n))
		}
		if have[fmt.Sprintf("JobStarted %d", n)] {
			need(fmt.Sprintf("AssignmentCreated %d", n))
			need(fmt.Sprintf("WorkerCreated %d", n))
		}
		if have[fmt.Sprintf("WorkerCreated %d", n)] && !have[fmt.Sprintf("WorkerFailed %d", n)] {
			need(fmt.Sprintf("WorkerTerminated %d", n))
		}
	}
	switch r.view.State {
	case "SUCCEEDED":
		need(fmt.Sprintf("JobCompleted %d", k))
		need(fmt.Sprintf("JobStarted %d", k))
		for i := range r.want.Steps {
			need(fmt.Sprintf("StepStarted %d.%d", k, i))
			need(fmt.Sprintf("StepCompleted %d.%d", k, i))
		}
	case "FAILED":
		need(fmt.Sprintf("JobFailed %d", k))
		need(fmt.Sprintf("JobStarted %d", k))
		need(fmt.Sprintf("StepFailed %d", k))
	case "CANCELLED":
		need(fmt.Sprintf("JobCancelled %d", k))
	case "TERMINATED":
		need(fmt.Sprintf("JobTerminated %d", k))
	}
	return out
}
