package sim

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
)

// A checker holds what happened against what is promised. It hears what began and
// stopped on machines, and every event of the house.
type checker struct {
	mu      sync.Mutex
	wrong   []string
	retries map[string]int             // that a job may have, by tenant/job
	live    map[string]map[int]int     // executions that run, by job and attempt
	ran     map[string]map[int]bool    // attempts of which something ran
	facts   map[string][]string        // types of a job's distinct events, in the order heard
	ends    map[string]map[string]bool // end states that were told, by job
	seen    map[ident.Event]bool
	open    map[ident.Assignment]int // assignments, less the ends of their workers
}

func newChecker() *checker {
	return &checker{
		retries: map[string]int{}, live: map[string]map[int]int{}, ran: map[string]map[int]bool{}, facts: map[string][]string{},
		ends: map[string]map[string]bool{}, seen: map[ident.Event]bool{}, open: map[ident.Assignment]int{},
	}
}

func name(t ident.Tenant, j ident.Job) string { return string(t) + "/" + string(j) }

func (c *checker) fault(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// accepted takes note of a job that the API said yes to.
func (c *checker) accepted(t ident.Tenant, j ident.Job, retries int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retries[name(t, j)] = retries
}

func (c *checker) began(t ident.Tenant, j ident.Job, attempt int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := name(t, j)
	if c.live[n] == nil {
		c.live[n], c.ran[n] = map[int]int{}, map[int]bool{}
	}
	c.live[n][attempt]++
	c.ran[n][attempt] = true
	if len(c.live[n]) > 1 {
		c.fault("job %s: two attempts are alive: %v", n, c.live[n])
	}
}

func (c *checker) stopped(t ident.Tenant, j ident.Job, attempt int, _ ident.Exec) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := name(t, j)
	if c.live[n][attempt]--; c.live[n][attempt] <= 0 {
		delete(c.live[n], attempt)
	}
}

// hear takes note of an event; repeats are expected, and dropped.
func (c *checker) hear(e event.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen[e.ID] {
		return
	}
	c.seen[e.ID] = true
	if strings.Contains(string(e.ID), ".r") {
		return // said again on purpose, by a reconciler
	}
	n := string(e.Tenant) + "/" + e.Key
	c.facts[n] = append(c.facts[n], e.Type)
	end := func(state string) {
		if c.ends[n] == nil {
			c.ends[n] = map[string]bool{}
		}
		c.ends[n][state+" "+string(e.ID)] = true
	}
	switch e.Subject {
	case event.JobCompleted.Subject:
		end("SUCCEEDED")
	case event.JobFailed.Subject:
		end("FAILED")
	case event.JobCancelled.Subject:
		end("CANCELLED")
	case event.JobTerminated.Subject:
		if d, err := event.JobTerminated.Read(e); err == nil && d.Final {
			end("TERMINATED")
		}
	case event.AssignmentCreated.Subject:
		if d, err := event.AssignmentCreated.Read(e); err == nil {
			c.open[d.Assignment]++
		}
	case event.WorkerTerminated.Subject:
		if d, err := event.WorkerTerminated.Read(e); err == nil && d.Assignment != "" {
			c.open[d.Assignment]--
		}
	case event.WorkerFailed.Subject:
		if d, err := event.WorkerFailed.Read(e); err == nil && d.Assignment != "" {
			c.open[d.Assignment]--
		}
	}
}

// verdict returns everything that is not as promised, once all is quiet. states
// are the jobs' as the API shows them.
func (c *checker) verdict(states map[string]string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, retries := range c.retries {
		switch ends := c.ends[n]; {
		case len(ends) != 1:
			c.fault("job %s ended %d times: %v; heard %v", n, len(ends), ends, c.facts[n])
		default:
			for end := range ends {
				if told, _, _ := strings.Cut(end, " "); told != states[n] {
					c.fault("job %s is %s, and its event said %s", n, states[n], told)
				}
			}
		}
		if ran := len(c.ran[n]); ran > retries+1 {
			c.fault("job %s ran in %d attempts with %d retries", n, ran, retries)
		}
		if !slices.Contains(c.facts[n], "JobRequested") {
			c.fault("job %s: no JobRequested", n)
		}
		if states[n] == "SUCCEEDED" {
			for _, must := range []string{"AssignmentCreated", "WorkerCreated", "JobStarted", "StepStarted", "StepCompleted"} {
				if !slices.Contains(c.facts[n], must) {
					c.fault("job %s succeeded without %s; heard %v", n, must, c.facts[n])
				}
			}
		}
		if len(c.live[n]) > 0 {
			c.fault("job %s has ended, and something of it runs: %v", n, c.live[n])
		}
	}
	for a, n := range c.open {
		if n != 0 {
			c.fault("assignment %s: %+d more than worker ends", a, n)
		}
	}
	slices.Sort(c.wrong)
	return c.wrong
}
