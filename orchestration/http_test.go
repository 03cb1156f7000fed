package orchestration

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/httpapi/apitest"
)

func TestTheSameJobAgainIsTheFirstOne(t *testing.T) {
	h := newHouse(t)
	body := `{"job_id":"j","spec":{"command":["x"],"env":{"A":"1"}},"tags":{"t":"1"}}`
	var first, again Job
	h.want(201, "POST", "/jobs", body, &first)
	h.run("j")
	h.want(200, "POST", "/jobs", body, &again)
	if again.State != Running || again.Correlation != first.Correlation || again.Steps[0].ID != first.Steps[0].ID {
		t.Errorf("answered %+v", again)
	}
	// Written otherwise, it is the same.
	h.want(200, "POST", "/jobs", `{"tags":{"t":"1"},"spec":{"env":{"A":"1"},"command":["x"],"retries":0},"job_id":"j"}`, nil)
	for _, other := range []string{
		`{"job_id":"j","spec":{"command":["y"],"env":{"A":"1"}},"tags":{"t":"1"}}`,
		`{"job_id":"j","spec":{"command":["x"],"env":{"A":"2"}},"tags":{"t":"1"}}`,
		`{"job_id":"j","spec":{"command":["x"],"env":{"A":"1"}},"tags":{"t":"2"}}`,
		`{"job_id":"j","spec":{"command":["x"],"env":{"A":"1"}},"tags":{"t":"1"},"priority":1}`,
	} {
		h.want(409, "POST", "/jobs", other, nil)
	}
	if n := h.count("ci.job.requested", "j"); n != 1 {
		t.Errorf("it was asked for %d times", n)
	}
	if code := h.callAs("other", "POST", "/jobs", `{"job_id":"j","spec":{"command":["y"]}}`, nil); code != 201 {
		t.Errorf("another tenant's job of this name: %d", code)
	}
}

func TestOfManyIdenticalCallsOneMakesTheJob(t *testing.T) {
	h := newHouse(t)
	var (
		all           sync.WaitGroup
		made, refused atomic.Int64
		start         = make(chan struct{})
	)
	for range 64 {
		all.Go(func() {
			<-start
			switch h.call("POST", "/jobs", `{"job_id":"j","spec":{"command":["x"]}}`, nil) {
			case 201:
				made.Add(1)
			case 200:
			default:
				refused.Add(1)
			}
		})
	}
	close(start)
	all.Wait()
	if made.Load() != 1 || refused.Load() != 0 {
		t.Errorf("%d made it, %d were refused", made.Load(), refused.Load())
	}
	if n := h.count("ci.job.requested", "j"); n != 1 || h.room.live.Load() != 1 {
		t.Errorf("it was asked for %d times; %d live", n, h.room.live.Load())
	}
}

type jobList struct {
	Items []Job  `json:"items"`
	Next  string `json:"next_cursor"`
}

// pages reads a listing to its end, n at a time.
func (h *house) pages(query string, n int) (ids []string) {
	h.t.Helper()
	for cursor := ""; ; {
		var page jobList
		h.want(200, "GET", fmt.Sprintf("/jobs?limit=%d&cursor=%s&%s", n, cursor, query), "", &page)
		for _, j := range page.Items {
			ids = append(ids, string(j.ID))
		}
		if cursor = page.Next; cursor == "" {
			return ids
		}
		if len(page.Items) != n || len(ids) > 1000 {
			h.t.Fatalf("a page of %d that is not the last", len(page.Items))
		}
	}
}

func TestAListingIsWholeHoweverItIsPaged(t *testing.T) {
	h := newHouse(t)
	var want, called []string
	for i := range 23 {
		id := fmt.Sprintf("j%02d", i)
		h.want(201, "POST", "/jobs", fmt.Sprintf(`{"job_id":%q,"spec":{"command":["x"]}}`, id), nil)
		want = append([]string{id}, want...)
		if i%3 == 0 {
			h.want(200, "POST", "/jobs/"+id+"/cancel", "", nil)
			called = append([]string{id}, called...)
		}
		if i%5 == 0 { // several of one millisecond
			h.later(time.Millisecond)
		}
	}
	h.callAs("other", "POST", "/jobs", `{"spec":{"command":["x"]}}`, nil)
	for _, n := range []int{1, 2, 7, 23, 100} {
		if got := h.pages("", n); !slices.Equal(got, want) {
			t.Errorf("%d at a time: %v", n, got)
		}
		if got := h.pages("state=CANCELLED", n); !slices.Equal(got, called) {
			t.Errorf("those called off, %d at a time: %v", n, got)
		}
	}
	for _, q := range []string{"cursor=x", "limit=0", "limit=1001", "state=GONE"} {
		if code := h.call("GET", "/jobs?"+q, "", nil); code != 422 {
			t.Errorf("%s: %d", q, code)
		}
	}
}

func TestCancelInEachState(t *testing.T) {
	lose := func(h *house) {
		must(h, event.WorkerFailed, "j", event.WorkerLoss{Worker: "w1", Job: "j", Attempt: 1, Reason: "gone"})
	}
	for state, c := range map[State]struct {
		bring  func(h *house)
		status int
	}{
		Pending: {func(*house) {}, 200},
		Scheduled: {func(h *house) {
			must(h, event.AssignmentCreated, "j", event.Assignment{Assignment: "a", Job: "j", Node: "n1", Attempt: 1})
		}, 200},
		Running:    {func(h *house) { h.run("j") }, 200},
		Succeeded:  {func(h *house) { h.run("j"); h.end("j", true) }, 409},
		Failed:     {func(h *house) { h.run("j"); h.end("j", false) }, 409},
		Terminated: {func(h *house) { h.run("j"); lose(h) }, 409},
		Cancelled:  {func(h *house) { h.want(200, "POST", "/jobs/j/cancel", "", nil) }, 200},
	} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.want(201, "POST", "/jobs", `{"job_id":"j","spec":{"command":["x"]}}`, nil)
			c.bring(h)
			if got := h.job("j").State; got != state {
				t.Fatalf("it is %s", got)
			}
			for range 2 {
				h.want(c.status, "POST", "/jobs/j/cancel", `{"reason":"no"}`, nil)
			}
			want, told := state, 0
			if c.status == 200 {
				want, told = Cancelled, 1
			}
			if j, n := h.job("j"), h.count("ci.job.cancelled", "j"); j.State != want || n != told || h.room.live.Load() != int64(live(j)) {
				t.Errorf("it is %s, which was said %d times; %d live", j.State, n, h.room.live.Load())
			}
		})
	}
}

func TestAForeignJobIsNotThere(t *testing.T) {
	h := newHouse(t)
	h.want(201, "POST", "/jobs", `{"job_id":"j","spec":{"command":["x"]}}`, nil)
	for _, c := range [][2]string{{"GET", "/jobs/j"}, {"POST", "/jobs/j/cancel"}, {"POST", "/jobs/j/retry"}} {
		if code := h.callAs("other", c[0], c[1], "", nil); code != 404 {
			t.Errorf("%s %s: %d", c[0], c[1], code)
		}
	}
	if h.job("j").State != Pending {
		t.Error("it was moved")
	}
}

func TestAnEndedJobIsTriedAgainOnce(t *testing.T) {
	h := newHouse(t)
	h.want(201, "POST", "/jobs", `{"job_id":"j","spec":{"command":["x"]}}`, nil)
	h.want(409, "POST", "/jobs/j/retry", "", nil)
	h.run("j")
	h.end("j", false)
	var a, b Job
	h.want(201, "POST", "/jobs/j/retry", "", &a)
	h.want(200, "POST", "/jobs/j/retry", "", &b)
	if a.ID == "j" || a.ID != b.ID || a.RetryOf != "j" || h.job("j").RetriedBy != a.ID || h.job("j").State != Failed {
		t.Errorf("tried again by %s and %s", a.ID, b.ID)
	}
	if n := h.count("ci.job.requested", string(a.ID)); n != 1 {
		t.Errorf("asked for %d times", n)
	}
}

// TestTooManyLiveJobsAreRefused counts jobs as they come and go.
func TestTooManyLiveJobsAreRefused(t *testing.T) {
	h := newHouse(t)
	h.room.cfg.MaxLive = 2
	for i, want := range []int{201, 201, 429} {
		h.want(want, "POST", "/jobs", fmt.Sprintf(`{"job_id":"j%d","spec":{"command":["x"]}}`, i), nil)
	}
	h.run(ident.Job("j0"))
	h.end("j0", true)
	h.want(201, "POST", "/jobs", `{"job_id":"j2","spec":{"command":["x"]}}`, nil)
}

// TestNoMoreLiveThanMay has many ask at once, and a run ask for more than is left.
func TestNoMoreLiveThanMay(t *testing.T) {
	h, _ := aRun(t, `"a":{"command":["x"]},"b":{"command":["x"]}`)
	h.room.cfg.MaxLive = int(h.room.live.Load()) + 9
	var made, refused atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			switch code := h.call("POST", "/jobs", `{"spec":{"command":["x"]}}`, nil); code {
			case 201:
				made.Add(1)
			case 429:
				refused.Add(1)
			default:
				t.Errorf("%d", code)
			}
		})
	}
	wg.Wait()
	if made.Load() != 9 || refused.Load() != 55 || h.room.live.Load() != int64(h.room.cfg.MaxLive) {
		t.Errorf("%d were made, %d refused, %d live; want 9, 55 and %d", made.Load(), refused.Load(), h.room.live.Load(), h.room.cfg.MaxLive)
	}
	h.room.cfg.MaxLive++
	h.want(429, "POST", "/pipelines/p/runs", `{"run_id":"two"}`, nil)
	h.want(201, "POST", "/pipelines/p/runs", `{"run_id":"one","jobs":["a"]}`, nil)
}

// TestARepeatIsAnsweredWhileTheQueueIsFull repeats commands that were accepted, under
// the bound that they helped to reach.
func TestARepeatIsAnsweredWhileTheQueueIsFull(t *testing.T) {
	h, _ := aRun(t, `"a":{"command":["x"]}`)
	for _, id := range []string{"j", "old"} {
		h.want(201, "POST", "/jobs", fmt.Sprintf(`{"job_id":%q,"spec":{"command":["x"]}}`, id), nil)
	}
	h.run("old")
	h.end("old", false)
	h.want(201, "POST", "/jobs/old/retry", "", nil)
	h.room.cfg.MaxLive = int(h.room.live.Load())
	for _, c := range []struct {
		status     int
		path, body string
	}{
		{200, "/jobs", `{"job_id":"j","spec":{"command":["x"]}}`},
		{409, "/jobs", `{"job_id":"j","spec":{"command":["y"]}}`},
		{429, "/jobs", `{"job_id":"k","spec":{"command":["x"]}}`},
		{429, "/jobs", `{"spec":{"command":["x"]}}`},
		{200, "/jobs/old/retry", ""},
		{200, "/pipelines/p/runs", `{"run_id":"r"}`},
		{409, "/pipelines/p/runs", `{"run_id":"r","env":{"A":"1"}}`},
		{429, "/pipelines/p/runs", `{"run_id":"s"}`},
		{429, "/pipelines/p/runs", ""},
	} {
		if got := h.call("POST", c.path, c.body, nil); got != c.status {
			t.Errorf("%s %s: %d, want %d", c.path, c.body, got, c.status)
		}
	}
	if code := h.callAs("other", "POST", "/jobs", `{"job_id":"j","spec":{"command":["x"]}}`, nil); code != 429 {
		t.Errorf("another tenant's first job of this name: %d", code)
	}
}

// asked permits, and remembers what it was asked about.
type asked struct {
	apitest.Permit
	what []string
}

func (a *asked) Decide(ctx context.Context, q authz.Question) authz.Answer {
	a.what = append(a.what, q.Resource.Type+"::"+q.Resource.ID)
	return a.Permit.Decide(ctx, q)
}

// TestTheTrailNamesARunThatIsNotThere has the decision say what was asked for.
func TestTheTrailNamesARunThatIsNotThere(t *testing.T) {
	h := newHouse(t)
	a := &asked{}
	h.room.gate.Decider = a
	h.want(404, "GET", "/runs/no", "", nil)
	h.want(404, "POST", "/runs/no/retry", "", nil)
	h.want(404, "POST", "/runs/no/cancel", "", nil)
	if want := []string{"Pipeline::run/no", "Pipeline::run/no", "Pipeline::run/no"}; !slices.Equal(a.what, want) {
		t.Errorf("asked about %q", a.what)
	}
}
