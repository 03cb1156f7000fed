package main

import (
	"math/rand/v2"
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
)

// TestAChronicleWaitsForAllRooms hears a run in many orders: those of one room stay in
// theirs, and nobody is done before the last.
func TestAChronicleWaitsForAllRooms(t *testing.T) {
	about := func(key string) event.About { return event.About{Tenant: "default", Key: key, At: time.Now()} }
	start := event.JobStart{Job: "j", Worker: "w", Attempt: 1, Steps: []ident.Step{"s1", "s2"}}
	rooms := [][]event.Event{
		{
			event.RunStarted.Event(about("r"), event.RunMoved{Run: "r", Jobs: []event.RunJob{{Job: "j"}, {Job: "k"}}}),
			event.JobRequested.Event(about("j"), event.JobRequest{Job: "j", Run: "r"}),
			event.JobStarted.Event(about("j"), start),
			event.JobCompleted.Event(about("j"), event.JobDone{Job: "j", Attempt: 1}),
			event.JobStarted.Event(about("k"), event.JobStart{Job: "k", Worker: "v", Attempt: 1, Steps: []ident.Step{"s3", "s4"}}),
			event.JobFailed.Event(about("k"), event.JobFault{Job: "k", Attempt: 1, Code: "exit", Final: true}),
			event.RunEnded.Event(about("r"), event.RunMoved{Run: "r"}),
		},
		{
			event.StepCompleted.Event(about("j"), event.StepEnd{Job: "j", Attempt: 1, Step: "s1"}),
			event.StepCompleted.Event(about("j"), event.StepEnd{Job: "j", Attempt: 1, Step: "s2"}),
			event.StepFailed.Event(about("k"), event.StepFault{Job: "k", Attempt: 1, Step: "s3", Code: "exit"}),
		},
		{
			event.WorkerCreated.Event(about("j"), event.WorkerMade{Worker: "w"}),
			event.WorkerTerminated.Event(about("j"), event.WorkerEnd{Worker: "w"}),
		},
	}
	foreign := event.StepCompleted.Event(about("x"), event.StepEnd{Job: "x", Attempt: 1, Step: "s9"})
	for range 300 {
		c, next, left := newChronicle("r"), make([]int, len(rooms)), 0
		c.hear(rooms[0][0])
		next[0] = 1
		for i := range rooms {
			left += len(rooms[i]) - next[i]
		}
		made := false
		for left > 0 {
			i := rand.IntN(len(rooms))
			if i == 0 && next[0] == 3 && !made { // the job ends after its worker was made
				i = 2
			}
			if next[i] == len(rooms[i]) {
				continue
			}
			if c.whole() {
				t.Fatalf("done before %d events", left)
			}
			made = made || i == 2
			if !c.hear(rooms[i][next[i]]) || c.hear(foreign) {
				t.Fatal("whose an event is")
			}
			next[i]++
			left--
		}
		if !c.whole() {
			t.Fatalf("not done: %+v", c)
		}
	}
}
