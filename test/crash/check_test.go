package crash

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

// story feeds a checker with the life of one job, as it should be: its first
// attempt fails, the second one succeeds. A plant changes one thing.
type story struct {
	c      *checker
	t      time.Time
	events []event.Event
	views  []view
	marks  []string
	nodes  []capacity
	left   []life
	want   want
}

func (s *story) at(ms int) time.Time { return s.t.Add(time.Duration(ms) * time.Millisecond) }

func goodStory() *story {
	s := &story{c: newChecker(), t: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)}
	about := func(ms int, twist string) event.About {
		return event.About{Tenant: "default", Key: "job_1", Twist: twist, At: s.at(ms)}
	}
	for n := 1; n <= 2; n++ {
		a, ms := fmt.Sprint(n), n*1000
		s.events = append(s.events,
			event.JobRequested.Event(about(ms, a), event.JobRequest{Job: "job_1", Attempt: n}),
			event.AssignmentCreated.Event(about(ms+10, a), event.Assignment{Job: "job_1", Attempt: n}),
			event.WorkerCreated.Event(about(ms+20, a), event.WorkerMade{Job: "job_1", Attempt: n, Worker: ident.Worker("wrk_" + a)}),
			event.JobStarted.Event(about(ms+30, a), event.JobStart{Job: "job_1", Attempt: n}),
			event.StepStarted.Event(about(ms+40, a+".0.1"), event.StepBegin{Job: "job_1", Attempt: n, Try: 1}),
		)
		if n == 1 {
			s.events = append(s.events,
				event.StepFailed.Event(about(ms+50, a+".0.1"), event.StepFault{Job: "job_1", Attempt: n, Try: 1, Last: true}),
				event.JobRetrying.Event(about(ms+60, a), event.JobRetry{Job: "job_1", Attempt: n}),
				event.WorkerTerminated.Event(about(ms+70, a), event.WorkerEnd{Job: "job_1", Attempt: n}))
		} else {
			s.events = append(s.events,
				event.StepCompleted.Event(about(ms+50, a+".0.1"), event.StepEnd{Job: "job_1", Attempt: n, Try: 1}),
				event.JobCompleted.Event(about(ms+60, a), event.JobDone{Job: "job_1", Attempt: n}),
				event.WorkerTerminated.Event(about(ms+70, a), event.WorkerEnd{Job: "job_1", Attempt: n}))
		}
	}
	end := s.at(2060)
	made := s.at(1000)
	s.views = []view{
		{ID: "job_1", State: "PENDING", Attempts: 1, Created: made}, {ID: "job_1", State: "RUNNING", Attempts: 1, Created: made},
		{ID: "job_1", State: "SCHEDULED", Attempts: 2, Created: made},
		{ID: "job_1", State: "SUCCEEDED", Attempts: 2, Created: made, Finished: &end},
		{ID: "job_1", State: "SUCCEEDED", Attempts: 2, Created: made, Finished: &end},
	}
	s.marks = []string{"start 1 stp_1", "start 2 stp_1", "end 2 stp_1"}
	q := spec.Quota{CPUm: 2000, MemoryMB: 4096}
	s.nodes = []capacity{{Node: "n", Total: q, Free: q}}
	s.want = want{Retries: 1, Steps: 1, Ends: []string{"SUCCEEDED"}}
	return s
}

func (s *story) tell() []fault {
	s.c.Up(s.t)
	s.c.Accepted("job_1", s.want, s.at(1001))
	for _, e := range s.events {
		s.c.Heard(e)
		s.c.Heard(e) // repeats are no fault
	}
	for _, v := range s.views {
		s.c.Saw(v)
	}
	s.c.Marked("job_1", s.marks)
	return s.c.Verdict(s.nodes, s.left)
}

// drop takes the events out whose id begins so.
func (s *story) drop(prefix string) {
	keep := s.events[:0]
	for _, e := range s.events {
		if !strings.HasPrefix(string(e.ID), prefix) {
			keep = append(keep, e)
		}
	}
	s.events = keep
}

func (s *story) add(e event.Event) { s.events = append(s.events, e) }

// TestCheckerFindsPlants plants one fault after the other in a story without any,
// and wants each to be found, by its name.
func TestCheckerFindsPlants(t *testing.T) {
	if wrong := goodStory().tell(); len(wrong) > 0 {
		t.Fatalf("faults in a story without any: %v", wrong)
	}
	later := func(s *story, ms int) *time.Time { at := s.at(ms); return &at }
	for _, p := range []struct {
		name, found string
		plant       func(*story)
	}{
		{"accepted and forgotten", "accepted, and not there", func(s *story) { s.views = nil }},
		{"never ends", "it has not ended", func(s *story) { s.views = s.views[:3] }},
		{"ends twice, by events", "it ended 2 times", func(s *story) {
			s.add(event.JobFailed.Event(event.About{Tenant: "default", Key: "job_1", Twist: "2", At: s.at(2061)}, event.JobFault{Job: "job_1", Attempt: 2, Final: true}))
		}},
		{"a step ends twice", "the step's try 2.0.1 ended twice", func(s *story) {
			s.add(event.StepFailed.Event(event.About{Tenant: "default", Key: "job_1", Twist: "2.0.1", At: s.at(2080)}, event.StepFault{Job: "job_1", Attempt: 2, Try: 1, Last: true}))
		}},
		{"ends twice, by looks", "it had ended as SUCCEEDED", func(s *story) {
			s.views = append(s.views, view{ID: "job_1", State: "FAILED", Attempts: 2, Finished: later(s, 2060)})
		}},
		{"ends again", "it had ended as SUCCEEDED", func(s *story) {
			s.views = append(s.views, view{ID: "job_1", State: "SUCCEEDED", Attempts: 2, Finished: later(s, 2090)})
		}},
		{"comes back to life", "it had ended as SUCCEEDED", func(s *story) {
			s.views = append(s.views, view{ID: "job_1", State: "PENDING", Attempts: 3})
		}},
		{"goes back", "no way from RUNNING to PENDING", func(s *story) {
			s.views = append([]view{{ID: "job_1", State: "RUNNING", Attempts: 1}}, s.views...)
		}},
		{"an attempt goes back", "attempt 1 after attempt 2", func(s *story) { s.views[2], s.views[1] = s.views[1], s.views[2] }},
		{"a state that is none", "is no state", func(s *story) { s.views[0].State = "WAITING" }},
		{"ended without a time", "finished at", func(s *story) { s.views[4].Finished, s.views[3].Finished = nil, nil }},
		{"state and event differ", "its event said FAILED", func(s *story) {
			s.drop("JobCompleted")
			s.add(event.JobFailed.Event(event.About{Tenant: "default", Key: "job_1", Twist: "2", At: s.at(2060)}, event.JobFault{Job: "job_1", Attempt: 2, Final: true}))
		}},
		{"event of another attempt", "its event said 1", func(s *story) {
			s.drop("JobCompleted")
			s.add(event.JobCompleted.Event(event.About{Tenant: "default", Key: "job_1", Twist: "1", At: s.at(2060)}, event.JobDone{Job: "job_1", Attempt: 1}))
		}},
		{"fails where it cannot", "it ended as FAILED, want one of", func(s *story) { s.views[3].State, s.views[4].State = "FAILED", "FAILED" }},
		{"lost for no reason", "lost, and no agent was touched", func(s *story) { s.views[3].State, s.views[4].State = "TERMINATED", "TERMINATED" }},
		{"retries: 0 runs twice", "it ran in 2 attempts with retries: 0", func(s *story) { s.want.Retries = 0 }},
		{"a step runs twice", "ran 2 times", func(s *story) { s.marks = append(s.marks, "start 2 stp_1") }},
		{"a step that was not run", "0 of its 1 steps", func(s *story) { s.marks = s.marks[:2] }},
		{"succeeds without running", "nothing of it ran", func(s *story) { s.marks = s.marks[:1] }},
		{"ends without a start", "and never began", func(s *story) { s.marks = append(s.marks, "end 2 stp_2") }},
		{"a torn mark", "no step writes", func(s *story) { s.marks = append(s.marks, "sta") }},
		{"two alive", "two attempts are alive", func(s *story) {
			s.c.Alive(s.at(1500), []life{{"job_1", 1, 10, "a"}, {"job_1", 2, 11, "b"}})
		}},
		{"an orphan", "is an orphan", func(s *story) {
			s.c.Up(s.t)
			s.c.Saw(view{ID: "job_1", State: "SUCCEEDED", Attempts: 2, Finished: later(s, 2060)})
			s.c.Alive(s.at(13_000), []life{{"job_1", 2, 10, "a"}})
			s.views = s.views[4:]
		}},
		{"something is left", "is left when all has ended", func(s *story) { s.left = []life{{"job_1", 2, 10, "a"}} }},
		{"capacity is lost", "when all has ended", func(s *story) { s.nodes[0].Free.CPUm -= 250 }},
		{"an assignment is left", "1 assignments", func(s *story) { s.nodes[0].Taken = 1 }},
		{"no nodes", "there are no nodes", func(s *story) { s.nodes = nil }},
		{"starts unasked", "started, and was not requested", func(s *story) { s.drop("JobRequested:default:job_1:2") }},
		{"asks too early", "requested before attempt 1 was over", func(s *story) { s.drop("JobRetrying") }},
		{"fails before it starts", "never started", func(s *story) { s.drop("JobStarted:default:job_1:2") }},
		{"goes on after the end", "after the end", func(s *story) {
			s.add(event.JobStarted.Event(event.About{Tenant: "default", Key: "job_1", Twist: "3", At: s.at(2100)}, event.JobStart{Job: "job_1", Attempt: 3}))
		}},
		{"says that it tries again, and does not", "was to be followed by another", func(s *story) {
			s.add(event.JobRetrying.Event(event.About{Tenant: "default", Key: "job_1", Twist: "2", At: s.at(2055)}, event.JobRetry{Job: "job_1", Attempt: 2}))
		}},
	} {
		t.Run(p.name, func(t *testing.T) {
			s := goodStory()
			p.plant(s)
			for _, f := range s.tell() {
				if strings.Contains(f.Words, p.found) {
					return
				}
			}
			t.Errorf("the plant was not found: want %q in %v", p.found, s.c.Verdict(s.nodes, s.left))
		})
	}
}

// TestCheckerWantsEveryEvent leaves out each event of the story in turn.
func TestCheckerWantsEveryEvent(t *testing.T) {
	for _, e := range goodStory().events {
		if strings.HasPrefix(string(e.ID), "StepStarted:default:job_1:1") || strings.HasPrefix(string(e.ID), "JobStarted:default:job_1:1") ||
			strings.HasPrefix(string(e.ID), "StepFailed:default:job_1:1") || strings.HasPrefix(string(e.ID), "WorkerCreated:default:job_1:1") {
			continue // an attempt that was lost before has none
		}
		s := goodStory()
		s.drop(string(e.ID))
		if len(s.tell()) == 0 {
			t.Errorf("%s is missing, and nothing is said", e.ID)
		}
	}
}

// TestCheckerForgivesALostBus wants nothing of events that went with the bus's
// store, and all of those after it.
func TestCheckerForgivesALostBus(t *testing.T) {
	s := goodStory()
	s.events = nil
	s.c.BusLost(s.at(1500))
	if wrong := s.tell(); len(wrong) > 0 {
		t.Errorf("the events are gone with the store: %v", wrong)
	}
	s = goodStory()
	s.events = nil
	s.c.BusLost(s.at(500))
	if len(s.tell()) == 0 {
		t.Error("the events came after the deletion, and nothing is said")
	}
}
