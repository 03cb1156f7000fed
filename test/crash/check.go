package crash

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/spec"
)

// recovery is how long after a restart, and after a job's end, nothing of the job
// may be alive any more.
const recovery = 10 * time.Second

// The ends of a job.
var ends = []string{"SUCCEEDED", "FAILED", "CANCELLED", "TERMINATED"}

// reach says which states a look at a job may find after a look that found the
// key: what the blueprint's table allows, in any number of moves. TERMINATED is
// an end here: where attempts are left it is never seen.
var reach = map[string][]string{
	"":          {"PENDING", "SCHEDULED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED", "TERMINATED"},
	"PENDING":   {"PENDING", "SCHEDULED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED", "TERMINATED"},
	"SCHEDULED": {"SCHEDULED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED", "TERMINATED"},
	"RUNNING":   {"RUNNING", "SUCCEEDED", "FAILED", "CANCELLED", "TERMINATED"},
}

// A want is what is known of a job before it runs.
type want struct {
	Kind    string
	Retries int      // of the job
	Tries   int      // more tries of each step
	Steps   int      // how many it has
	Ends    []string // how it may end, besides being lost
}

// A view is a job as the API shows it.
type view struct {
	ID       string     `json:"job_id"`
	State    string     `json:"state"`
	Attempts int        `json:"attempts"`
	Created  time.Time  `json:"created_at"`
	Finished *time.Time `json:"finished_at"`
	Failure  *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"failure"`
}

func (v view) ended() bool { return slices.Contains(ends, v.State) }

// A life is one process of a job's attempt, found alive.
type life struct {
	Job     string
	Attempt int
	Pid     int
	Words   string // what it is, for people
}

// A span is a time from one moment to another.
type span struct{ from, to time.Time }

// A capacity is what a node has.
type capacity struct {
	Node  string     `json:"node_id"`
	Total spec.Quota `json:"total"`
	Free  spec.Quota `json:"free"`
	Taken int        `json:"assignments"`
}

// A fault is something that is not as promised.
type fault struct{ Job, Words string }

// A record is all that was seen of one job.
type record struct {
	want     want
	accepted time.Time
	view     view
	seen     []string // the states, in order
	facts    []fact
	marks    []string
}

// A fact is an event of a job, without its repeats.
type fact struct {
	Kind, ID string
	Attempt  int
	Index    int // of a step
	Try      int // of it
	Final    bool
	At       time.Time
}

// A checker holds what is seen from outside against what is promised: by the
// API, by the event stream, by the marks that steps leave and by /proc.
type checker struct {
	mu      sync.Mutex
	jobs    map[string]*record
	seen    map[string]bool // events
	wrong   map[fault]bool
	touched []span      // when an agent was made to suffer
	lost    []time.Time // when the bus's store was deleted
	full    bool        // the disk was full at some time
	ready   time.Time   // when the server was ready last; zero while it is down
}

func newChecker() *checker {
	return &checker{jobs: map[string]*record{}, seen: map[string]bool{}, wrong: map[fault]bool{}}
}

func (c *checker) fault(job, format string, args ...any) {
	c.wrong[fault{job, fmt.Sprintf(format, args...)}] = true
}

// of returns a job's record; what is seen may come before the job's acceptance.
func (c *checker) of(job string) *record {
	r := c.jobs[job]
	if r == nil {
		r = &record{}
		c.jobs[job] = r
	}
	return r
}

// Accepted takes note of a job that the API said yes to.
func (c *checker) Accepted(job string, w want, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.of(job)
	r.want, r.accepted = w, at
}

// Touched takes note of a time in which agents were killed or stopped.
func (c *checker) Touched(from, to time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touched = append(c.touched, span{from, to})
}

// BusLost takes note of the deletion of the bus's store.
func (c *checker) BusLost(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = append(c.lost, at)
}

// DiskFull takes note of a full disk: what the bus did not take it is given again
// later, so that events may come in another order than they happened.
func (c *checker) DiskFull() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.full = true
}

// Up takes note of a server that is ready; the zero time says that it is down.
func (c *checker) Up(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready = at
}

// Saw takes note of a look at a job. Looks at one job must come in order.
func (c *checker) Saw(v view) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.of(v.ID)
	old := r.view
	if len(r.seen) == 0 || old.State != v.State || old.Attempts != v.Attempts {
		r.seen = append(r.seen, fmt.Sprintf("%d %s", v.Attempts, v.State))
	}
	switch {
	case old.ended() && (v.State != old.State || v.Attempts != old.Attempts || !same(v.Finished, old.Finished)):
		c.fault(v.ID, "it had ended as %s in attempt %d at %v, and is %s in attempt %d", old.State, old.Attempts, old.Finished, v.State, v.Attempts)
	case v.Attempts < old.Attempts:
		c.fault(v.ID, "attempt %d after attempt %d", v.Attempts, old.Attempts)
	case v.Attempts == old.Attempts && !old.ended() && !slices.Contains(reach[old.State], v.State):
		c.fault(v.ID, "no way from %s to %s within attempt %d", old.State, v.State, v.Attempts)
	case !slices.Contains(reach[""], v.State):
		c.fault(v.ID, "%q is no state", v.State)
	case v.ended() != (v.Finished != nil):
		c.fault(v.ID, "it is %s, and finished at %v", v.State, v.Finished)
	}
	r.view = v
}

func same(a, b *time.Time) bool { return a == nil && b == nil || a != nil && b != nil && a.Equal(*b) }

// Alive takes note of processes that were all alive at one moment.
func (c *checker) Alive(at time.Time, all []life) {
	c.mu.Lock()
	defer c.mu.Unlock()
	by := map[string]life{}
	for _, l := range all {
		if other, two := by[l.Job]; two && other.Attempt != l.Attempt {
			c.fault(l.Job, "two attempts are alive: %d (%s) and %d (%s)", other.Attempt, other.Words, l.Attempt, l.Words)
		}
		by[l.Job] = l
		r := c.jobs[l.Job]
		if r == nil || !r.view.ended() || c.ready.IsZero() {
			continue
		}
		since := *r.view.Finished
		if c.ready.After(since) {
			since = c.ready
		}
		if at.Sub(since) > recovery {
			c.fault(l.Job, "its process %d (%s) is an orphan: it lives %v after the end and the last restart", l.Pid, l.Words, recovery)
		}
	}
}

// Heard takes note of an event, in the order of the stream; repeats are expected.
func (c *checker) Heard(e event.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := string(e.ID)
	if c.seen[id] {
		return
	}
	c.seen[id] = true
	if i := strings.LastIndex(id, ".r"); i > 0 { // said again by a reconciler
		id = id[:i]
		if c.seen[id] {
			return
		}
		c.seen[id] = true
	}
	if e.Key == "" {
		return
	}
	f, job := read(e)
	if job == "" {
		return
	}
	f.ID, f.Kind, f.At = id, e.Type, e.Time
	r := c.of(job)
	r.facts = append(r.facts, f)
}

// read returns what the checks need of an event, and the job that it is about.
func read(e event.Event) (f fact, job string) {
	switch e.Subject {
	case event.JobRequested.Subject:
		d, _ := event.JobRequested.Read(e)
		return fact{Attempt: d.Attempt}, string(d.Job)
	case event.AssignmentCreated.Subject:
		d, _ := event.AssignmentCreated.Read(e)
		return fact{Attempt: d.Attempt}, string(d.Job)
	case event.WorkerCreated.Subject:
		d, _ := event.WorkerCreated.Read(e)
		return fact{Attempt: d.Attempt}, string(d.Job)
	case event.WorkerTerminated.Subject:
		d, _ := event.WorkerTerminated.Read(e)
		return fact{Attempt: d.Attempt}, string(d.Job)
	case event.WorkerFailed.Subject:
		d, _ := event.WorkerFailed.Read(e)
		return fact{Attempt: d.Attempt}, string(d.Job)
	case event.JobStarted.Subject:
		d, _ := event.JobStarted.Read(e)
		return fact{Attempt: d.Attempt}, string(d.Job)
	case event.StepStarted.Subject:
		d, _ := event.StepStarted.Read(e)
		return fact{Attempt: d.Attempt, Index: d.Index}, string(d.Job)
	case event.StepCompleted.Subject:
		d, _ := event.StepCompleted.Read(e)
		return fact{Attempt: d.Attempt, Index: d.Index, Try: d.Try}, string(d.Job)
	case event.StepFailed.Subject:
		d, _ := event.StepFailed.Read(e)
		return fact{Attempt: d.Attempt, Index: d.Index, Try: d.Try, Final: d.Last}, string(d.Job)
	case event.JobRetrying.Subject:
		d, _ := event.JobRetrying.Read(e)
		return fact{Attempt: d.Attempt}, string(d.Job)
	case event.JobCompleted.Subject:
		d, _ := event.JobCompleted.Read(e)
		return fact{Attempt: d.Attempt, Final: true}, string(d.Job)
	case event.JobFailed.Subject:
		d, _ := event.JobFailed.Read(e)
		return fact{Attempt: d.Attempt, Final: d.Final}, string(d.Job)
	case event.JobCancelled.Subject:
		d, _ := event.JobCancelled.Read(e)
		return fact{Attempt: d.Attempt, Final: true}, string(d.Job)
	case event.JobTerminated.Subject:
		d, _ := event.JobTerminated.Read(e)
		return fact{Attempt: d.Attempt, Final: d.Final}, string(d.Job)
	}
	return fact{}, ""
}

// Marked takes note of what the steps of a job wrote down themselves.
func (c *checker) Marked(job string, lines []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of(job).marks = lines
}

// Live returns the accepted jobs that were not seen to have ended.
func (c *checker) Live() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for id, r := range c.jobs {
		if !r.accepted.IsZero() && !r.view.ended() {
			out = append(out, id)
		}
	}
	return out
}

// Jobs returns the accepted jobs.
func (c *checker) Jobs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for id, r := range c.jobs {
		if !r.accepted.IsZero() {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// Unheard returns the accepted jobs of which an event is missing that must have
// been heard.
func (c *checker) Unheard() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for id, r := range c.jobs {
		if !r.accepted.IsZero() && len(c.missing(r)) > 0 {
			out = append(out, id)
		}
	}
	return out
}

// Ended counts the accepted jobs by how they ended.
func (c *checker) Ended() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := map[string]int{}
	for _, r := range c.jobs {
		if !r.accepted.IsZero() {
			n[r.view.State]++
		}
	}
	return n
}

// History tells all that was seen of a job.
func (c *checker) History(job string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.of(job)
	var b strings.Builder
	fmt.Fprintf(&b, "job %s: %+v, accepted %s\n  seen %s\n", job, r.want, r.accepted.Format(time.RFC3339Nano), strings.Join(r.seen, ", "))
	for _, f := range r.facts {
		fmt.Fprintf(&b, "  %s %s\n", f.At.Format("15:04:05.000000"), f.ID)
	}
	for _, m := range r.marks {
		b.WriteString("  mark: " + m + "\n")
	}
	return b.String()
}

func (f fact) step() string { return strconv.Itoa(f.Attempt) + "." + strconv.Itoa(f.Index) }
