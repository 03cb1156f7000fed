package worker

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/worker/provider"
)

func TestAnAssignmentThatComesTwiceMakesOneWorker(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		id := h.assign("j", "")
		h.assign("j", "")
		h.wantSaid(1, 0, 0)
		h.assign("j", "1.r1") // scheduling has not heard of the worker
		if said := h.heard("WorkerCreated"); len(said) != 2 || said[1] != said[0]+".r1" {
			t.Errorf("said %q", said)
		}
		if live, creates := h.yard.counts(); live != 1 || creates != 1 {
			t.Errorf("%d workers, made in %d tries", live, creates)
		}
		if w := h.stored(id); w.State != Running || w.Address != "yard:"+string(id) || w.Attempt != 1 {
			t.Errorf("it is %+v", w)
		}
	})
}

// TestAWorkerIsSaidAgainUntilItsJobHasStarted lets two jobs run for long, of which one
// seems not to have been heard of.
func TestAWorkerIsSaidAgainUntilItsJobHasStarted(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.assign("known", "")
		h.must(tell(h, event.JobStarted, "", event.JobStart{Job: "known", Attempt: 1}))
		h.assign("unheard", "")
		h.later(staleAfter + staleAfter/3)
		said := h.heard("WorkerCreated")
		of := func(job string) (n int) {
			for _, id := range said {
				if strings.Contains(id, ":"+job+":") {
					n++
				}
			}
			return n
		}
		if of("known") != 1 || of("unheard") != 2 {
			t.Errorf("said %q", said)
		}
	})
}

// TestAJobsWorkerWaitsForWhoCallsIt has the execution room away for as long as this one
// may be: only who made a worker takes it for lost.
func TestAJobsWorkerWaitsForWhoCallsIt(t *testing.T) {
	for outlive, want := range map[time.Duration]time.Duration{0: lease, 10 * time.Second: lease, 7 * time.Minute: 7 * time.Minute} {
		inHouse(t, func(t *testing.T, h *house) {
			h.close()
			h.outlive = outlive
			h.open()
			id := h.assign("j", "")
			h.yard.set(func() {
				if got := h.yard.leases[id]; got != want {
					t.Errorf("with %v its lease is %v, want %v", outlive, got, want)
				}
			})
		})
	}
}

func TestAnotherRoomsNodeIsLeftAlone(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.must(tell(h, event.AssignmentCreated, "", event.Assignment{Assignment: "a", Job: "j", Node: "n2", Attempt: 1, Provider: "yard"}))
		if _, creates := h.yard.counts(); creates != 0 {
			t.Error("a worker was made")
		}
		h.wantSaid(0, 0, 0)
	})
}

func TestAnEndThatComesFirstIsRemembered(t *testing.T) {
	for name, end := range map[string]func(h *house) error{
		"cancelled": func(h *house) error {
			return tell(h, event.JobCancelled, "", event.JobStop{Job: "j", Attempt: 1, Reason: "no"})
		},
		"failed":    func(h *house) error { return tell(h, event.JobFailed, "", event.JobFault{Job: "j", Attempt: 1}) },
		"lost":      func(h *house) error { return tell(h, event.JobTerminated, "", event.JobFault{Job: "j", Attempt: 1}) },
		"completed": func(h *house) error { return tell(h, event.JobCompleted, "", event.JobDone{Job: "j", Attempt: 1}) },
		"retrying":  func(h *house) error { return tell(h, event.JobRetrying, "", event.JobRetry{Job: "j", Attempt: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			inHouse(t, func(t *testing.T, h *house) {
				h.must(end(h))
				h.must(end(h))
				id := h.assign("j", "")
				h.assign("j", "")
				if _, creates := h.yard.counts(); creates != 0 {
					t.Error("a worker was made for what is over")
				}
				h.wantSaid(0, 0, 1)
				if w := h.stored(id); w.State != Failed || !strings.Contains(w.Reason, "before it had a worker") {
					t.Errorf("it is %s: %s", w.State, w.Reason)
				}
				h.assign("j", "1.r1") // asked again, it says so again
				if said := h.heard("WorkerFailed"); len(said) != 2 || said[1] != said[0]+".r1" {
					t.Errorf("said %q", said)
				}
			})
		})
	}
}

func TestTombstonesAreForgottenInTime(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.must(tell(h, event.JobCancelled, "", event.JobStop{Job: "j", Attempt: 1, Reason: "no"}))
		count := func() (n int) {
			h.must(h.room.db.QueryRow(t.Context(), `SELECT COUNT(*) FROM tombstone`).Scan(&n))
			return n
		}
		h.later(tombstones - time.Minute)
		if n := count(); n != 1 {
			t.Errorf("%d before their time", n)
		}
		h.later(2 * time.Minute)
		if n := count(); n != 0 {
			t.Errorf("%d after it", n)
		}
	})
}

func TestWithoutCapacityItIsTriedAgain(t *testing.T) {
	busy, broken := provider.ErrCapacity, errors.New("the machine has a cold")
	for name, c := range map[string]struct {
		refuse []error
		tries  int
		made   bool
	}{
		"for a while":            {[]error{busy, busy}, 3, true},
		"until the last try":     {slices.Repeat([]error{busy}, createTry-1), createTry, true},
		"something else, always": {slices.Repeat([]error{broken}, createTry), createTry, false},
		"something else, once":   {[]error{broken}, 2, true},
		"what can never be made": {[]error{provider.ErrSpec}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			inHouse(t, func(t *testing.T, h *house) {
				h.yard.set(func() { h.yard.refuse = c.refuse })
				id := h.assign("j", "")
				if _, creates := h.yard.counts(); creates != c.tries {
					t.Errorf("%d tries, want %d", creates, c.tries)
				}
				if c.made {
					h.wantSaid(1, 0, 0)
					return
				}
				h.wantSaid(0, 0, 1)
				if w := h.stored(id); w.State != Failed || w.Reason == "" {
					t.Errorf("it is %s: %q", w.State, w.Reason)
				}
			})
		})
	}
}

// TestAnAssignmentWaitsWhileThereAreTooManyWorkers has people take all places with
// workers of their own, which scheduling does not count.
func TestAnAssignmentWaitsWhileThereAreTooManyWorkers(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		a := event.Assignment{Assignment: "asg_j", Job: "j", Node: "n1", Attempt: 1, Provider: "yard"}
		e := event.AssignmentCreated.Event(event.About{Tenant: "acme", Key: "j", Twist: "1", At: time.Now()}, a)
		ask := func(refuse ...error) error {
			h.yard.set(func() { h.yard.refuse = refuse })
			return h.room.assigned(t.Context(), e, a)
		}
		full := slices.Repeat([]error{provider.ErrCapacity}, createTry)
		if err := ask(full...); !errors.Is(err, bus.ErrLater) {
			t.Fatalf("it is answered %v", err)
		}
		h.wantSaid(0, 0, 0)
		h.later(crowdedTime)
		h.must(ask(full...))
		h.wantSaid(0, 0, 1)
	})
}

// TestAWorkerAskedForByHandEndsWithItsAssignment takes back what POST /schedule gave.
func TestAWorkerAskedForByHandEndsWithItsAssignment(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.must(tell(h, event.AssignmentCreated, "0", event.Assignment{Assignment: "asg_j", Job: "j", Node: "n1", Provider: "yard"}))
		h.wantSaid(1, 0, 0)
		h.must(tell(h, event.AssignmentRevoked, "0", event.Rejection{Assignment: "asg_j", Job: "j", Reason: "no more"}))
		h.later(time.Minute)
		h.wantSaid(1, 1, 0)
	})
}

func TestALostWorkerFailsOnce(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		id := h.assign("j", "")
		h.yard.die(id, 3)
		h.wait()
		h.wantSaid(1, 0, 1)
		if w := h.stored(id); w.State != Failed || w.Reason != "killed by signal 9" {
			t.Errorf("it is %s: %s", w.State, w.Reason)
		}
		// What follows from it changes nothing.
		h.must(tell(h, event.JobTerminated, "", event.JobFault{Job: "j", Attempt: 1}))
		h.assign("j", "")
		h.later(time.Hour)
		h.wantSaid(1, 0, 1)
	})
}

func TestALeaseThatRanOutIsTold(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		id := h.assign("j", "")
		h.yard.events <- provider.Ended{Worker: id, ExitCode: 1, Expired: true, Reason: "nobody called it"}
		h.wait()
		h.wantSaid(1, 0, 1)
		for _, e := range h.said.All() {
			if l, err := event.WorkerLease.Read(e); err == nil && e.Subject == event.WorkerLease.Subject {
				if l.Worker != id || l.Job != "j" || l.Attempt != 1 || l.Expired.IsZero() {
					t.Errorf("%+v", l)
				}
				return
			}
		}
		t.Error("it is not told")
	})
}

// TestAWorkerThatDiesBeforeItIsSavedIsLost lets it die after the provider has made
// it, and before anyone can know its name.
func TestAWorkerThatDiesBeforeItIsSavedIsLost(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		gate := make(chan struct{})
		h.yard.set(func() { h.yard.gate = gate })
		id := workerID("acme", "asg_j")
		done := make(chan struct{})
		go func() {
			defer close(done)
			h.assign("j", "")
		}()
		h.wait()
		h.yard.die(id, 1) // the word of it is faster than its making
		h.wait()
		close(gate)
		<-done
		h.wait()
		h.wantSaid(1, 0, 1)
		if w := h.stored(id); w.State != Failed {
			t.Errorf("it is %s", w.State)
		}
	})
}

func TestATryThatDiesDoesNotCountAgainstTheNext(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.yard.set(func() { h.yard.faint = 2 })
		id := h.assign("j", "")
		h.wait()
		if _, creates := h.yard.counts(); creates != 3 {
			t.Errorf("%d tries", creates)
		}
		h.wantSaid(1, 0, 0)
		if w := h.stored(id); w.State != Running || !h.yard.has(id) {
			t.Errorf("it is %s", w.State)
		}
	})
}

func TestAJobsEndEndsItsWorkerOnce(t *testing.T) {
	for name, end := range map[string]func(h *house) error{
		"completed": func(h *house) error { return tell(h, event.JobCompleted, "", event.JobDone{Job: "j", Attempt: 1}) },
		"cancelled": func(h *house) error {
			return tell(h, event.JobCancelled, "", event.JobStop{Job: "j", Attempt: 1, Reason: "no"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inHouse(t, func(t *testing.T, h *house) {
				id := h.assign("j", "")
				h.must(tell(h, event.JobRetrying, "", event.JobRetry{Job: "j", Attempt: 0})) // of another attempt
				if h.wait(); !h.yard.has(id) {
					t.Fatal("another attempt's end ended it")
				}
				h.yard.set(func() { h.yard.stuck = 3 })
				for range 3 { // the bus brings again what failed, and what did not
					end(h)
				}
				h.later(10 * time.Second)
				h.must(end(h))
				h.wait()
				h.wantSaid(1, 1, 0)
				if w := h.stored(id); w.State != Terminated || w.ExitCode == nil || h.yard.has(id) {
					t.Errorf("it is %s", w.State)
				}
			})
		})
	}
}

func TestAWorkerThatDiesWhileItIsEndedStaysLost(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		id := h.assign("j", "")
		h.yard.set(func() { h.yard.stuck = 2 })
		h.must(tell(h, event.JobCancelled, "", event.JobStop{Job: "j", Attempt: 1, Reason: "no"}))
		h.wait()
		h.yard.die(id, 1)
		h.later(10 * time.Second)
		h.wantSaid(1, 0, 1)
		if w := h.stored(id); w.State != Failed {
			t.Errorf("it is %s", w.State)
		}
	})
}

// TestAWorkerThatWasEndedAlreadyIsEnded has the room killed between the end of a
// worker and the saving of it.
func TestAWorkerThatWasEndedAlreadyIsEnded(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		id := h.assign("j", "")
		h.yard.set(func() { delete(h.yard.live, id) })
		h.must(tell(h, event.JobCompleted, "", event.JobDone{Job: "j", Attempt: 1}))
		h.wantSaid(1, 1, 0)
		if w := h.stored(id); w.State != Terminated {
			t.Errorf("it is %s", w.State)
		}
	})
}

func TestALiveWorkerSaysAgainThatItIsThere(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.assign("j", "")
		h.later(10 * time.Minute)
		said := h.heard("WorkerCreated")
		if len(said) < 3 || len(said) > 8 {
			t.Errorf("said %d times in ten minutes", len(said))
		}
		for i, id := range said[1:] {
			if !strings.Contains(id, ".r") || slices.Contains(said[:i+1], id) {
				t.Errorf("%s is no repetition with a name of its own", id)
			}
		}
	})
}

func TestARestartFindsTheWorkersAsTheyAre(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		lives, dies, ends := h.assign("a", ""), h.assign("b", ""), h.assign("c", "")
		h.yard.set(func() { h.yard.stuck = 1000 })
		h.must(tell(h, event.JobCancelled, "", event.JobStop{Job: "c", Attempt: 1, Reason: "no"}))
		h.later(time.Second)
		h.close()
		h.yard.set(func() { h.yard.stuck = 0; delete(h.yard.live, dies) })
		h.open()
		h.wait()
		for id, want := range map[ident.Worker]State{lives: Running, dies: Failed, ends: Terminated} {
			if w := h.stored(id); w.State != want {
				t.Errorf("%s is %s, want %s", w.Job, w.State, want)
			}
		}
		h.must(tell(h, event.JobCompleted, "", event.JobDone{Job: "a", Attempt: 1}))
		if w := h.stored(lives); w.State != Terminated {
			t.Errorf("the one that lived on is %s", w.State)
		}
	})
}

// TestTheWorkerBeforeIsNotEndedInItsSuccessorsProcess restarts the room when the end
// of a worker was not saved, and its process is another's already.
func TestTheWorkerBeforeIsNotEndedInItsSuccessorsProcess(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.yard.set(func() { h.yard.handle = "pid 7" })
		before := h.assign("a", "")
		h.later(time.Second)
		h.yard.set(func() { delete(h.yard.live, before) }) // it ended, and then the disk was full
		last := h.assign("b", "")
		ends := h.yard.ends
		h.close()
		h.open()
		h.must(tell(h, event.JobCompleted, "", event.JobDone{Job: "a", Attempt: 1})) // it comes again
		h.wait()
		for id, want := range map[ident.Worker]State{before: Terminated, last: Running} {
			if w := h.stored(id); w.State != want {
				t.Errorf("the worker of %s is %s, want %s", w.Job, w.State, want)
			}
		}
		if h.yard.ends != ends {
			t.Error("a process was ended")
		}
	})
}
