package scheduling

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/bus"
)

// TestAnyOrder delivers what the other rooms would say in any order, several at
// a time and more than once, with the room closed and opened again in between.
func TestAnyOrder(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { newStorm(t, seed).run() })
	}
}

type storm struct {
	*house
	t      *testing.T
	r      *rand.Rand
	air    []event.Event // what may be delivered
	heard  int64         // of the outbox
	total  map[ident.Node]spec.Quota
	used   map[ident.Node]spec.Quota
	live   map[ident.Assignment]event.Assignment
	made   map[Attempt]ident.Assignment
	size   map[ident.Job]spec.Quota
	off    map[ident.Job]int  // called off up to this attempt, and delivered
	called map[ident.Job]bool // will be called off
	asked  map[Attempt]bool

	offBefore map[ident.Job]int // the last delivery
}

func newStorm(t *testing.T, seed uint64) *storm {
	nodes := []NodeConfig{node("n1", 1000), node("n2", 1500), node("n3", 400)}
	s := &storm{
		house: newHouse(t, nodes...), t: t, r: rand.New(rand.NewPCG(seed, 7)),
		total: map[ident.Node]spec.Quota{}, used: map[ident.Node]spec.Quota{}, live: map[ident.Assignment]event.Assignment{},
		made: map[Attempt]ident.Assignment{}, size: map[ident.Job]spec.Quota{},
		off: map[ident.Job]int{}, offBefore: map[ident.Job]int{}, called: map[ident.Job]bool{}, asked: map[Attempt]bool{},
	}
	for _, n := range nodes {
		s.total[n.ID] = n.Quota
	}
	s.judge.no = func(q authz.Question) string {
		if strings.HasSuffix(q.Correlation, "7") && q.Resource.ID == "n1" {
			return "not there"
		}
		return ""
	}
	return s
}

func (s *storm) run() {
	for i := range 40 {
		job := fmt.Sprint("job-", i)
		s.size[ident.Job(job)] = quota(100+100*s.r.Int64N(9), 1+s.r.Int64N(300))
		s.request(job, 1)
		if s.r.IntN(4) == 0 {
			s.called[ident.Job(job)] = true
			s.say(s.cancelled(job, 1+s.r.IntN(2)))
		}
	}
	for step := 0; len(s.air) > 0; step++ {
		if step > 20_000 {
			s.t.Fatalf("%d events cannot be delivered: %s …", len(s.air), s.air[0].ID)
		}
		s.deliver()
		s.listen()
		switch s.r.IntN(60) {
		case 0:
			s.restart()
		case 1:
			s.pass(20 * time.Second)
			if err := s.reconcile(context.Background(), true); err != nil {
				s.t.Fatal(err)
			}
		}
		s.listen()
	}
	s.settle()
}

// say puts an event into the air, once or more often.
func (s *storm) say(e event.Event) {
	for range 1 + s.r.IntN(3) {
		s.air = append(s.air, e)
	}
}

func (s *storm) request(job string, attempt int) {
	s.asked[Attempt{"acme", ident.Job(job), attempt}] = true
	s.say(s.requested(job, attempt, s.size[ident.Job(job)]))
}

// deliver takes a few events out of the air.
func (s *storm) deliver() {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		took []event.Event
		back []event.Event
	)
	for job, n := range s.off {
		s.offBefore[job] = n
	}
	for range min(len(s.air), 1+s.r.IntN(8)) {
		i := s.r.IntN(len(s.air))
		e := s.air[i]
		s.air[i] = s.air[len(s.air)-1]
		s.air = s.air[:len(s.air)-1]
		wg.Go(func() {
			switch err := s.hears[e.Subject](context.Background(), e); {
			case errors.Is(err, bus.ErrLater):
				mu.Lock()
				back = append(back, e)
				mu.Unlock()
			case err != nil:
				s.t.Errorf("%s: %v", e.ID, err)
			}
		})
		took = append(took, e)
	}
	wg.Wait()
	for _, e := range took {
		s.note(e)
	}
	s.air = append(s.air, back...)
}

// note keeps account of what an event does.
func (s *storm) note(e event.Event) {
	switch e.Subject {
	case event.WorkerTerminated.Subject:
		d, _ := event.WorkerTerminated.Read(e)
		s.gone(d.Assignment)
	case event.WorkerFailed.Subject:
		d, _ := event.WorkerFailed.Read(e)
		s.gone(d.Assignment)
	case event.JobCancelled.Subject:
		d, _ := event.JobCancelled.Read(e)
		s.off[d.Job] = max(s.off[d.Job], d.Attempt)
	}
}

func (s *storm) gone(id ident.Assignment) {
	if a, ok := s.live[id]; ok {
		s.used[a.Node] = s.used[a.Node].Minus(a.Runtime.Limits)
		delete(s.live, id)
	}
}

// listen plays the other rooms to what the room has said.
func (s *storm) listen() {
	s.t.Helper()
	rows, err := s.DB().Outbox(context.Background(), s.heard, 10_000)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, row := range rows {
		e := row.Event
		s.heard = row.Seq
		if e.Subject != event.AssignmentCreated.Subject {
			continue
		}
		a, err := event.AssignmentCreated.Read(e)
		if err != nil {
			s.t.Fatal(err)
		}
		if strings.Contains(string(e.ID), ".r") {
			if _, ok := s.made[Attempt{"acme", a.Job, a.Attempt}]; !ok {
				s.t.Fatalf("%s says again what was never said", e.ID)
			}
			continue
		}
		s.assigned(a)
	}
}

func (s *storm) assigned(a event.Assignment) {
	s.t.Helper()
	at := Attempt{"acme", a.Job, a.Attempt}
	if id, twice := s.made[at]; twice {
		s.t.Fatalf("%v has two places: %s and %s", at, id, a.Assignment)
	}
	if !s.asked[at] {
		s.t.Fatalf("%v has a place that it never asked for", at)
	}
	if a.Attempt <= s.offBefore[a.Job] {
		s.t.Fatalf("%v was called off, and got a place", at)
	}
	s.made[at], s.live[a.Assignment] = a.Assignment, a
	s.used[a.Node] = s.used[a.Node].Plus(a.Runtime.Limits)
	if !s.total[a.Node].Holds(s.used[a.Node]) {
		s.t.Fatalf("%s is oversold: %+v used", a.Node, s.used[a.Node])
	}
	job := string(a.Job)
	if s.r.IntN(3) > 0 {
		s.say(s.workerMade(a))
	}
	if s.r.IntN(3) == 0 {
		s.say(s.workerLost(a))
	} else {
		s.say(s.workerEnded(a))
	}
	switch over := s.about(job, a.Attempt); {
	case a.Attempt < 3 && s.r.IntN(3) == 0:
		s.say(event.JobRetrying.Event(over, event.JobRetry{Job: a.Job, Attempt: a.Attempt}))
		s.request(job, a.Attempt+1)
	case s.r.IntN(2) == 0:
		s.say(event.JobCompleted.Event(over, event.JobDone{Job: a.Job, Attempt: a.Attempt}))
	default:
		s.say(event.JobFailed.Event(over, event.JobFault{Job: a.Job, Attempt: a.Attempt, Final: true}))
	}
}

// settle checks what is left when all has been said and heard.
func (s *storm) settle() {
	for range 3 { // what a policy denied for a while
		if err := s.reconcile(context.Background(), true); err != nil {
			s.t.Fatal(err)
		}
	}
	s.listen()
	if len(s.air) > 0 {
		s.t.Fatal("placed only after everything was over")
	}
	for n, total := range s.total {
		if got := s.free(string(n)); got != total {
			s.t.Errorf("%s has %+v free, of %+v", n, got, total)
		}
	}
	var live int
	if err := s.DB().QueryRow(context.Background(), `SELECT count(*) FROM assignments WHERE ended_ms IS NULL`).Scan(&live); err != nil || live != 0 {
		s.t.Errorf("%d assignments live on (%v)", live, err)
	}
	for at := range s.asked {
		if _, ok := s.made[at]; !ok && !s.called[at.Job] {
			s.t.Errorf("%v never got a place", at)
		}
	}
	revoked := map[ident.Assignment]int{}
	for _, e := range s.outbox() {
		if e.Subject == event.AssignmentRevoked.Subject && !strings.Contains(string(e.ID), ".r") {
			d, _ := event.AssignmentRevoked.Read(e)
			revoked[d.Assignment]++
		}
	}
	for id, n := range revoked {
		if n > 1 {
			s.t.Errorf("%s was revoked %d times", id, n)
		}
	}
}
