package worker

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/worker/provider"
)

const aWorker = `{"worker_id":"w","provider_id":"yard","runtime_spec":{"limits":{"cpu_m":100}}}`

func TestTheSameWorkerAgainIsTheFirstOne(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		first := h.want(201, "POST", "/workers", aWorker)
		h.later(time.Second)
		if again := h.want(200, "POST", "/workers", aWorker); !again.Created.Equal(first.Created) || again.State != Running {
			t.Errorf("answered %+v", again)
		}
		h.want(409, "POST", "/workers", strings.Replace(aWorker, "100", "200", 1))
		h.want(422, "POST", "/workers", strings.Replace(aWorker, "yard", "moon", 1))
		h.want(422, "POST", "/workers", strings.Replace(aWorker, `"limits"`, `"secret_refs":["TOKEN"],"limits"`, 1))
		if live, creates := h.yard.counts(); live != 1 || creates != 1 {
			t.Errorf("%d workers, made in %d tries", live, creates)
		}
		h.wantSaid(1, 0, 0)
	})
}

func TestOfManyIdenticalCallsOneMakesTheWorker(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		var all sync.WaitGroup
		var made, refused atomic.Int64
		for range 64 {
			all.Go(func() {
				switch code, _, _ := h.callAs("acme", "POST", "/workers", aWorker); code {
				case 201:
					made.Add(1)
				case 200:
				default:
					refused.Add(1)
				}
			})
		}
		all.Wait()
		if live, creates := h.yard.counts(); made.Load() != 1 || refused.Load() != 0 || live != 1 || creates != 1 {
			t.Errorf("%d made it, %d were refused; %d workers, made in %d tries", made.Load(), refused.Load(), live, creates)
		}
	})
}

func TestDeleteEndsAWorkerOnce(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.want(201, "POST", "/workers", aWorker)
		h.yard.set(func() { h.yard.stuck = 2 })
		for range 3 {
			h.want(200, "DELETE", "/workers/w", "")
		}
		h.later(time.Minute)
		if w := h.want(200, "DELETE", "/workers/w", ""); w.State != Terminated || h.yard.has("w") {
			t.Errorf("it is %s", w.State)
		}
		h.want(200, "DELETE", "/workers/w", "")
		h.wait()
		h.wantSaid(1, 1, 0)
		h.want(404, "DELETE", "/workers/none", "")
	})
}

func TestAWorkerThatIsDeletedWhileItIsMadeEnds(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		gate := make(chan struct{})
		h.yard.set(func() { h.yard.gate = gate })
		var all sync.WaitGroup
		all.Go(func() { h.want(201, "POST", "/workers", aWorker) })
		h.wait()
		h.want(200, "DELETE", "/workers/w", "")
		close(gate)
		all.Wait()
		h.wait()
		if w := h.stored("w"); w.State != Terminated || h.yard.has("w") {
			t.Errorf("it is %s", w.State)
		}
		if n := len(h.heard("WorkerTerminated")); n != 1 {
			t.Errorf("its end was said %d times", n)
		}
	})
}

func TestAWorkerThatDiesWhileItIsMadeIsLost(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		gate := make(chan struct{})
		h.yard.set(func() { h.yard.gate = gate })
		var all sync.WaitGroup
		all.Go(func() { h.want(201, "POST", "/workers", aWorker) })
		h.wait()
		h.yard.die("w", 1)
		h.wait()
		close(gate)
		all.Wait()
		h.wait()
		if w := h.stored("w"); w.State != Failed {
			t.Errorf("it is %s", w.State)
		}
		if n := len(h.heard("WorkerFailed")); n != 1 {
			t.Errorf("its end was said %d times", n)
		}
	})
}

func TestWhoIsToldToTryLaterMay(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.yard.set(func() { h.yard.capacity = 0 })
		h.want(429, "POST", "/workers", aWorker)
		h.want(404, "GET", "/workers/w", "")
		h.wantSaid(0, 0, 0) // there was none
		h.yard.set(func() { h.yard.capacity = 1 })
		if w := h.want(201, "POST", "/workers", aWorker); w.State != Running {
			t.Errorf("it is %s", w.State)
		}
	})
}

// TestWorkersMadeByHandAreBounded has a tenant ask for more than its share, and all
// tenants for more than there may be.
func TestWorkersMadeByHandAreBounded(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		named := func(id string) string { return strings.Replace(aWorker, `"w"`, `"`+id+`"`, 1) }
		most := provider.MaxByHand / maxOwn
		for tenant := range most {
			for i := range maxOwn {
				id := fmt.Sprintf("w%d-%d", tenant, i)
				if code, _, text := h.callAs(fmt.Sprint("t", tenant), "POST", "/workers", named(id)); code != 201 {
					t.Fatalf("%s: %d %s", id, code, text)
				}
			}
			if code, _, text := h.callAs(fmt.Sprint("t", tenant), "POST", "/workers", named("more")); code != 429 || !strings.Contains(text, "you have 16") {
				t.Fatalf("one more of a tenant: %d %s", code, text)
			}
			if code, _, _ := h.callAs(fmt.Sprint("t", tenant), "POST", "/workers", named(fmt.Sprintf("w%d-0", tenant))); code != 200 {
				t.Errorf("one that is there: %d", code)
			}
		}
		if code, _, text := h.callAs("late", "POST", "/workers", named("more")); code != 429 || !strings.Contains(text, "there are 64") {
			t.Errorf("one more in all: %d %s", code, text)
		}
		h.assign("j", "")
		if code, _, _ := h.callAs("t0", "DELETE", "/workers/w0-0", ""); code != 200 {
			t.Fatal(code)
		}
		h.wait()
		if code, _, text := h.callAs("late", "POST", "/workers", named("more")); code != 201 {
			t.Errorf("once one has ended: %d %s", code, text)
		}
		h.wantSaid(provider.MaxByHand+2, 1, 0)
	})
}

// TestTenantsDoNotMeetByAName has two of them choose the same name for a worker.
func TestTenantsDoNotMeetByAName(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.want(201, "POST", "/workers", aWorker)
		for _, c := range [][2]string{{"GET", "/workers/w"}, {"GET", "/workers/w/logs"}, {"DELETE", "/workers/w"}} {
			if code, _, _ := h.callAs("other", c[0], c[1], ""); code != 404 {
				t.Errorf("%s %s: %d", c[0], c[1], code)
			}
		}
		if code, w, _ := h.callAs("other", "POST", "/workers", aWorker); code != 409 {
			t.Errorf("the name of a live one: %d, %s", code, w.State)
		}
		h.callAs("other", "DELETE", "/workers/w", "")
		if h.wait(); !h.yard.has("w") {
			t.Fatal("another tenant ended it")
		}
		// Once it has ended, its name is free, and what it was stays apart.
		h.want(200, "DELETE", "/workers/w", "")
		h.wait()
		if code, _, _ := h.callAs("other", "POST", "/workers", aWorker); code != 201 {
			t.Fatalf("the name of an ended one: %d", code)
		}
		if _, _, text := h.callAs("acme", "GET", "/workers/w/logs", ""); text != "" {
			t.Errorf("another tenant's worker said %q", text)
		}
		h.want(200, "DELETE", "/workers/w", "")
		if h.wait(); !h.yard.has("w") {
			t.Error("its former owner ended it")
		}
	})
}

func TestAListingIsWholeHoweverItIsPaged(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		for _, id := range []string{"a", "b", "c", "d", "e"} {
			h.want(201, "POST", "/workers", strings.Replace(aWorker, `"w"`, `"`+id+`"`, 1))
		}
		h.want(200, "DELETE", "/workers/c", "")
		h.wait()
		for query, want := range map[string]string{"": "abde", "&all=true": "abcde", "&state=TERMINATED": "c", "&state=RUNNING": "abde"} {
			for _, n := range []string{"1", "2", "4", "9"} {
				var got []string
				for cursor := ""; ; {
					page, err := h.list("/workers?limit=" + n + query + "&cursor=" + cursor)
					h.must(err)
					for _, w := range page.Items {
						got = append(got, string(w.ID))
					}
					if cursor = page.Next; cursor == "" || len(got) > 9 {
						break
					}
				}
				if !slices.Equal(got, strings.Split(want, "")) {
					t.Errorf("%q, %s at a time: %v", query, n, got)
				}
			}
		}
	})
}

func TestAWorkerOfAJobIsNotOneToAskForAgain(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		id := h.assign("j", "")
		h.want(409, "POST", "/workers", strings.Replace(aWorker, `"w"`, `"`+string(id)+`"`, 1))
		h.want(200, "DELETE", "/workers/"+string(id), "")
		h.wait()
		h.must(tell(h, event.JobCompleted, "", event.JobDone{Job: "j", Attempt: 1}))
		h.wantSaid(1, 1, 0)
	})
}
