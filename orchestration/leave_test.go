package orchestration

import (
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
)

// TestACancelIsAnsweredWhenTheWorkerIsGone has a worker end a while after the cancel, and one
// that takes longer than anybody waits.
func TestACancelIsAnsweredWhenTheWorkerIsGone(t *testing.T) {
	for name, ends := range map[string]bool{"ends": true, "goes on": false} {
		h := newHouse(t)
		h.want(201, "POST", "/jobs", `{"job_id":"j","spec":{"command":["x"]}}`, nil)
		h.run("j")
		n := h.job("j").Attempts
		answered, began := make(chan int, 1), time.Now()
		go func() { answered <- h.call("POST", "/jobs/j/cancel", `{}`, nil) }()
		for h.job("j").State != Cancelled && time.Since(began) < time.Minute {
			time.Sleep(time.Millisecond)
		}
		if ends {
			select {
			case <-answered:
				t.Errorf("%s: answered before its worker was gone", name)
			default:
			}
			must(h, event.WorkerTerminated, "j", event.WorkerEnd{Worker: "w1", Job: "j", Attempt: n})
		}
		code := <-answered
		if took := time.Since(began); code != 200 || !ends && took < leaveTime {
			t.Errorf("%s: %d after %v", name, code, took)
		}
		if len(h.room.leave.who) > 0 {
			t.Errorf("%s: somebody still waits", name)
		}
	}
}
