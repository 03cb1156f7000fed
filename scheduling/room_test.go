package scheduling

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/sqldb"
)

func TestPlacedAtOnce(t *testing.T) {
	h := newHouse(t, node("n1", 1000))
	h.hear(h.requested("j1", 1, quota(400, 300)))
	h.hear(h.requested("j1", 1, quota(400, 300))) // a copy
	all := said(h, event.AssignmentCreated)
	if len(all) != 1 {
		t.Fatalf("%d assignments, want 1", len(all))
	}
	a := all[0]
	if a.Job != "j1" || a.Attempt != 1 || a.Node != "n1" || a.Provider != "process" || a.Policy != Policy || a.Offer == "" ||
		!ident.Valid(string(a.Assignment)) || a.Runtime.Image != "golang" || a.Runtime.Limits != quota(400, 300) ||
		!slices.Equal(a.Runtime.SecretRefs, []string{"TOKEN"}) || a.Runtime.Labels["fragua.dev/run"] != "run_1" {
		t.Errorf("%+v", a)
	}
	for _, e := range h.outbox() {
		if e.Subject == event.AssignmentCreated.Subject && (e.Tenant != "acme" || e.Key != "j1" || e.CorrelationID != "cor_j1" || e.TraceParent != "00-j1") {
			t.Errorf("%+v", e)
		}
	}
	if n := len(said(h, event.AuthGranted)); n != 1 {
		t.Errorf("%d decisions, want 1", n)
	}
	if got := h.free("n1"); got != quota(600, 700) {
		t.Errorf("free: %+v", got)
	}
	if got := h.tell("j1"); got.State != Created || got.Node != "n1" || !strings.HasPrefix(got.Text, "on node n1 since") {
		t.Errorf("%+v", got)
	}
	if _, err := h.find(t.Context(), jobKey{"other", "j1"}); !errors.Is(err, errNoPlace) {
		t.Errorf("another tenant's job is seen: %v", err)
	}
}

func TestQueueAndFree(t *testing.T) {
	h := newHouse(t, node("n1", 1000))
	for i := range 3 {
		h.hear(h.requested(fmt.Sprint("j", i), 1, quota(1000, 1)))
		h.pass(time.Second)
	}
	if got := h.tell("j2"); got.State != Pending || got.Position != 2 || got.Queued != 2 ||
		len(got.Reasons) != 1 || got.Reasons[0].Reason != "0 cpu_m free, 1000 asked" {
		t.Errorf("%+v", got)
	}
	for want := 1; want <= 3; want++ {
		all := said(h, event.AssignmentCreated)
		if len(all) != want || all[want-1].Job != ident.Job(fmt.Sprint("j", want-1)) {
			t.Fatalf("after %d: %+v", want, all)
		}
		end := h.workerEnded(all[want-1])
		if want == 2 {
			end = h.workerLost(all[want-1])
		}
		h.hear(end, end, h.workerLost(all[want-1])) // it counts once, whatever is said of it
	}
	if got := h.free("n1"); got != quota(1000, 1000) {
		t.Errorf("free: %+v", got)
	}
	if got := h.tell("j1"); got.State != Created || !strings.HasPrefix(got.Text, "was on node n1 from") {
		t.Errorf("%+v", got)
	}
	h.look(func(r *Room) {
		if len(r.jobs)+len(r.byID) > 0 {
			t.Error("what has ended is still in memory")
		}
	})
}

func TestCancel(t *testing.T) {
	h := newHouse(t, node("n1", 1000))
	h.hear(h.requested("on", 1, quota(1000, 1)), h.requested("waits", 1, quota(1000, 1)), h.cancelled("early", 2))
	a := said(h, event.AssignmentCreated)[0]
	h.hear(h.workerMade(a), h.cancelled("on", 1), h.cancelled("on", 1), h.cancelled("waits", 1))
	revoked := said(h, event.AssignmentRevoked)
	if len(revoked) != 1 || revoked[0].Assignment != a.Assignment || revoked[0].Attempt != 1 || revoked[0].Reason == "" {
		t.Fatalf("%+v", revoked)
	}
	if got := h.tell("on"); got.State != Revoked || h.free("n1") != quota(0, 999) {
		t.Errorf("the place is free before its worker has ended: %+v", got)
	}
	h.hear(h.workerEnded(a))
	if got := h.tell("waits"); got.State != Revoked || got.Position != 0 || h.free("n1") != quota(1000, 1000) {
		t.Errorf("%+v", got)
	}
	// The beginning of what has ended comes too late; what follows it does not.
	h.hear(h.requested("early", 1, quota(1, 1)), h.requested("early", 2, quota(1, 1)), h.requested("on", 1, quota(1, 1)))
	if n := len(said(h, event.AssignmentCreated)); n != 1 {
		t.Fatalf("%d assignments, want 1", n)
	}
	h.hear(h.requested("early", 3, quota(1, 1)))
	if n := len(said(h, event.AssignmentCreated)); n != 2 {
		t.Fatalf("%d assignments, want 2", n)
	}
}

func TestRetrying(t *testing.T) {
	h := newHouse(t, node("n1", 1000))
	over := func(job string) event.Event {
		return event.JobRetrying.Event(h.about(job, 1), event.JobRetry{Job: ident.Job(job), Attempt: 1})
	}
	h.hear(h.requested("made", 1, quota(300, 1)), h.requested("unmade", 1, quota(300, 1)), h.requested("waits", 1, quota(900, 1)))
	all := said(h, event.AssignmentCreated)
	h.hear(h.workerMade(all[0]), over("made"), over("unmade"), over("waits"))
	revoked := said(h, event.AssignmentRevoked)
	if len(revoked) != 1 || revoked[0].Job != "unmade" {
		t.Fatalf("%+v", revoked)
	}
	if h.queued() != 0 {
		t.Error("an attempt that is over still waits")
	}
	h.hear(h.requested("made", 2, quota(300, 1)), h.requested("made", 1, quota(300, 1)))
	if all = said(h, event.AssignmentCreated); len(all) != 3 || all[2].Attempt != 2 || all[2].Assignment == all[0].Assignment {
		t.Fatalf("%+v", all)
	}
}

// TestExplainBetweenAttempts asks why a job waits whose attempt came to nothing,
// whatever was heard first: that it did, or that its worker has ended.
func TestExplainBetweenAttempts(t *testing.T) {
	for name, workerFirst := range map[string]bool{"its worker ends later": false, "its worker ended before": true} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, node("n1", 1000))
			h.hear(h.requested("flaky", 1, quota(300, 1)))
			a := said(h, event.AssignmentCreated)[0]
			over := event.JobRetrying.Event(h.about("flaky", 1), event.JobRetry{Job: "flaky", Attempt: 1, After: 60_000, Reason: "exit code 3"})
			rest := []event.Event{over, h.workerEnded(a)}
			if workerFirst {
				rest[0], rest[1] = rest[1], rest[0]
			}
			h.hear(h.workerMade(a))
			h.hear(rest[0])
			h.hear(rest[1])
			at := over.Time.Add(time.Minute).UTC().Format(time.RFC3339)
			if got := h.tell("flaky").Text; !strings.Contains(got, "exit code 3; attempt 2 is asked for at "+at) {
				t.Errorf("%q does not say what follows, and when", got)
			}
		})
	}
}

func TestRejected(t *testing.T) {
	h := newHouse(t, node("n1", 1000))
	h.hear(h.requested("big", 1, quota(2000, 1)), h.requested("big", 1, quota(2000, 1)), h.requested("big2", 1, quota(2000, 1)))
	h.restart()
	all := said(h, event.AssignmentRejected)
	if len(all) != 2 || all[0].Job != "big" || !strings.Contains(all[0].Reason, "1000 cpu_m in all, 2000 asked") {
		t.Fatalf("%+v", all)
	}
	if got := h.tell("big"); got.State != Rejected || got.Position != 1 || !strings.Contains(got.Text, "2000 asked") {
		t.Errorf("%+v", got)
	}
	h.restart(node("n1", 1000), node("n2", 4000))
	if all := said(h, event.AssignmentCreated); len(all) != 2 || all[0].Node != "n2" {
		t.Errorf("%+v", all)
	}
	if n := len(said(h, event.AssignmentRejected)); n != 2 {
		t.Errorf("%d rejections, want 2", n)
	}
}

// TestRejectedOnce has a job be hopeless, not hopeless, and hopeless again.
func TestRejectedOnce(t *testing.T) {
	h := newHouse(t, node("n1", 1000))
	h.judge.no = func(authz.Question) string { return "no" }
	h.hear(h.requested("big", 1, quota(2000, 1)))
	if n := len(said(h, event.AssignmentRejected)); n != 1 {
		t.Fatalf("%d rejections, want 1", n)
	}
	// Everybody has heard of it: the outbox does not know it any more.
	if err := h.DB().Write(t.Context(), func(tx *sqldb.Tx) error { return tx.Forget(1 << 40) }); err != nil {
		t.Fatal(err)
	}
	h.restart(node("n1", 1000), node("n2", 4000))
	if got := h.tell("big"); got.State != Pending {
		t.Errorf("%+v", got)
	}
	h.restart(node("n1", 1000))
	if got := h.tell("big"); got.State != Rejected || len(said(h, event.AssignmentRejected)) > 0 {
		t.Errorf("%+v, or it was said again", got)
	}
}

func TestNodes(t *testing.T) {
	h := newHouse(t, node("n1", 1000), node("n2", 500))
	h.hear(h.requested("j", 1, quota(800, 1)))
	h.restart() // the same nodes: the same offers
	offers := said(h, event.OfferCreated)
	if len(offers) != 2 {
		t.Fatalf("%+v", offers)
	}
	h.look(func(r *Room) {
		if n, _, _ := r.snap.Node("n1"); n.Offer != offers[0].Offer {
			t.Errorf("the offer is %q, was %q", n.Offer, offers[0].Offer)
		}
	})
	h.restart(node("n1", 600)) // shrinks below what runs on it; n2 is gone
	offers = said(h, event.OfferCreated)
	if len(offers) != 3 || offers[2].Node != "n1" || offers[2].Quota != quota(600, 600) || offers[2].Offer == offers[0].Offer {
		t.Fatalf("%+v", offers)
	}
	if got := h.nodeIDs(); !slices.Equal(got, []string{"n1"}) {
		t.Errorf("nodes: %v", got)
	}
	h.hear(h.requested("k", 1, quota(1, 1)))
	if got := h.tell("k"); got.State != Pending || got.Reasons[0].Reason != "0 cpu_m free, 1 asked" {
		t.Errorf("%+v", got)
	}
	h.restart(node("n3", 100)) // n1 is removed, but something runs on it
	if got := said(h, event.AssignmentCreated); len(got) != 2 || got[1].Node != "n3" {
		t.Fatalf("%+v", got)
	}
	h.hear(h.requested("l", 1, quota(200, 1)))
	if got := h.tell("l"); got.State != Rejected || got.Reasons[0].Reason != "takes no new jobs: it is being removed" {
		t.Errorf("%+v", got)
	}
	h.hear(h.workerEnded(said(h, event.AssignmentCreated)[0]))
	if got := h.nodeIDs(); !slices.Equal(got, []string{"n3"}) {
		t.Errorf("n1 is empty and retired; nodes: %v", got)
	}
	h.restart()
	if got := h.nodeIDs(); !slices.Equal(got, []string{"n3"}) {
		t.Errorf("nodes: %v", got)
	}
}

// TestDecision looks at what is asked before a job is placed: by the room itself,
// at work for the job's tenant.
func TestDecision(t *testing.T) {
	h := newHouse(t, node("a", 1000))
	var asked []authz.Question
	h.judge.no = func(q authz.Question) string { asked = append(asked, q); return "" }
	h.hear(h.requested("j1", 1, quota(900, 1)))
	if len(asked) != 1 {
		t.Fatalf("asked %d times, want once", len(asked))
	}
	q := asked[0]
	if q.Action != "Node::schedule" || q.Principal.Sub != "service:scheduling" || q.Principal.Tenant != "acme" || q.Correlation != "cor_j1" || q.TraceParent != "00-j1" ||
		q.Resource.Type != "Node" || q.Resource.ID != "a" || q.Resource.Tenant != "acme" || q.Resource.Attrs["capacity_snapshot"] != "cpu_m=1000 memory_mb=1000 gpu=0 io=0" {
		t.Errorf("%+v", q)
	}
	if want := map[string]any{"resources_available": true, "zone": "eu", "pool": "main"}; !maps.Equal(q.Context, want) {
		t.Errorf("context %v, want %v", q.Context, want)
	}
}

func TestDenied(t *testing.T) {
	h := newHouse(t, node("a", 1000), node("b", 2000))
	h.judge.no = func(q authz.Question) string {
		if q.Resource.ID == "a" {
			return "a is not for this tenant"
		}
		return ""
	}
	h.hear(h.requested("j1", 1, quota(900, 1)), h.requested("j2", 1, quota(900, 1)))
	if all := said(h, event.AssignmentCreated); len(all) != 2 || all[0].Node != "b" || all[1].Node != "b" {
		t.Fatalf("%+v", all)
	}
	if n := len(said(h, event.AuthorizationDenied)); n != 2 {
		t.Errorf("%d denials, want 2", n)
	}
	h.hear(h.requested("j3", 1, quota(900, 1)))
	if got := h.tell("j3"); got.State != Pending || got.Reasons[0].Reason != "policy: a is not for this tenant" {
		t.Errorf("%+v", got)
	}
	asked := h.judge.asked.Load()
	h.plan()
	if h.judge.asked.Load() != asked {
		t.Error("what was denied is asked again at once")
	}
	h.judge.no = nil
	if err := h.reconcile(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if all := said(h, event.AssignmentCreated); len(all) != 3 || all[2].Node != "a" {
		t.Errorf("the policy allows it now: %+v", all)
	}
}

// TestDeniedEverywhere bounds how often an attempt is decided upon.
func TestDeniedEverywhere(t *testing.T) {
	var nodes []NodeConfig
	for i := range 3*denyPause + 1 {
		nodes = append(nodes, node(fmt.Sprint("n", i), 1000))
	}
	h := newHouse(t, nodes...)
	h.judge.no = func(authz.Question) string { return "nowhere" }
	h.hear(h.requested("j", 1, quota(1, 1)))
	if got := h.tell("j"); !strings.Contains(got.Text, "policy: nowhere") || !strings.Contains(got.Text, "it is tried soon") {
		t.Errorf("%+v", got)
	}
	for want := int64(denyPause); want <= 3*denyPause; want += denyPause {
		h.plan()
		if got := h.judge.asked.Load(); got != want {
			t.Fatalf("%d decisions, want %d", got, want)
		}
		if err := h.reconcile(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDecisionThatFails(t *testing.T) {
	h := newHouse(t, node("a", 1000))
	h.judge.no = func(authz.Question) string { panic("no policy engine") }
	h.hear(h.requested("j1", 1, quota(900, 1)))
	if got := h.tell("j1"); got.State != Pending || got.Reasons[0].Reason != "policy: the decision failed" {
		t.Errorf("%+v", got)
	}
}

func TestFull(t *testing.T) {
	h := newHouse(t)
	h.cfg.MaxQueue = 2
	h.restart()
	h.hear(h.requested("j1", 1, quota(1, 1)), h.requested("j2", 1, quota(1, 1)), h.requested("j1", 1, quota(1, 1)))
	late := h.requested("j3", 1, quota(1, 1))
	if err := h.hears[late.Subject](t.Context(), late); !errors.Is(err, bus.ErrLater) {
		t.Fatalf("got %v, want too early", err)
	}
	h.hear(h.cancelled("j1", 1), late)
	if h.queued() != 2 {
		t.Errorf("%d wait, want 2", h.queued())
	}
}

func TestWhatIsAskedForByHandKeepsNoJobOut(t *testing.T) {
	h := newHouse(t, node("n", 1000))
	h.cfg.MaxQueue = 2
	h.restart()
	for i, want := range []int{201, 201, 429} {
		body := fmt.Sprintf(`{"job_id":"hand%d","resources":{"cpu_m":5000}}`, i)
		if code := h.call("acme", "POST", "/schedule", body, nil); code != want {
			t.Errorf("request %d by hand: %d, want %d", i, code, want)
		}
	}
	h.hear(h.requested("j1", 1, quota(1, 1)), h.requested("j2", 1, quota(1, 1)))
	if made := said(h, event.AssignmentCreated); len(made) != 2 {
		t.Errorf("%d jobs have a place, want 2", len(made))
	}
}

func TestAnEndBeforeTheBeginningIsExplained(t *testing.T) {
	h := newHouse(t, node("n", 1000))
	h.hear(h.cancelled("j1", 1))
	if got := h.tell("j1"); !strings.Contains(got.Text, "before it asked for a place") {
		t.Errorf("%q", got.Text)
	}
}

func TestMalformed(t *testing.T) {
	h := newHouse(t, node("n", 1000))
	for name, e := range map[string]event.Event{
		"no job":     h.requested("", 1, quota(1, 1)),
		"no attempt": h.requested("j", 0, quota(1, 1)),
		"negative":   h.requested("j", 1, quota(-1, 1)),
		"whose":      event.JobRequested.Event(event.About{Tenant: "a", Key: "j"}, event.JobRequest{Job: "j", Attempt: 1, Tenant: "b"}),
	} {
		if err := h.hears[e.Subject](t.Context(), e); err == nil || errors.Is(err, bus.ErrLater) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// Workers that are none of ours free nothing.
	h.hear(h.requested("j", 1, quota(600, 1)))
	a := said(h, event.AssignmentCreated)[0]
	foreign := h.workerEnded(a)
	foreign.Tenant = "other"
	a.Assignment = "asg_of_nobody"
	h.hear(foreign, h.workerEnded(a), event.WorkerTerminated.Event(h.about("w", 0), event.WorkerEnd{Worker: "w"}))
	if got := h.free("n"); got != quota(400, 999) {
		t.Errorf("free: %+v", got)
	}
}

func TestClosed(t *testing.T) {
	h := newHouse(t, node("n", 1000))
	done := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- h.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	h.Close()
	e := h.requested("j", 1, quota(1, 1))
	if err := h.hears[e.Subject](t.Context(), e); !errors.Is(err, sqldb.ErrClosed) || !errors.Is(err, bus.ErrLater) {
		t.Errorf("got %v, want closed, and that it comes again", err)
	}
}

func TestConfig(t *testing.T) {
	h := newHouse(t)
	for name, nodes := range map[string][]NodeConfig{
		"no name": {{}}, "twice": {node("n", 1), node("n", 1)}, "negative": {node("n", -1)},
	} {
		cfg := h.cfg
		cfg.Dir, cfg.Nodes = t.TempDir(), nodes
		if r, err := Open(t.Context(), cfg); err == nil {
			r.Close()
			t.Errorf("%s: opened", name)
		}
		if files, _ := filepath.Glob(filepath.Join(cfg.Dir, "*")); len(files) > 0 {
			t.Errorf("%s: left %q", name, files)
		}
	}
}

func TestAssignmentID(t *testing.T) {
	long := strings.Repeat("x", ident.MaxLen)
	seen := map[ident.Assignment]Attempt{}
	for _, a := range []Attempt{{"t", "j", 1}, {"t", "j", 2}, {"u", "j", 1}, {"t", "j_1", 1}, {"t", ident.Job(long), 1}, {"t", ident.Job(long[:127] + "y"), 1}, {"t", "j", 1 << 30}} {
		id := assignmentID(a)
		if !ident.Valid(string(id)) || id != assignmentID(a) {
			t.Errorf("%q of %v", id, a)
		}
		if b, twice := seen[id]; twice {
			t.Errorf("%q is of %v and %v", id, a, b)
		}
		seen[id] = a
	}
}

// TestWorkersAreCounted has room for more jobs than there may be workers.
func TestWorkersAreCounted(t *testing.T) {
	small := node("n1", 1000)
	small.Quota.Workers = 1
	h := newHouse(t, small)
	h.hear(h.requested("first", 1, quota(100, 1)), h.requested("second", 1, quota(100, 1)))
	all := said(h, event.AssignmentCreated)
	if len(all) != 1 {
		t.Fatalf("%d places for one worker", len(all))
	}
	if got := h.tell("second"); !strings.Contains(got.Text, "0 workers free, 1 asked") || got.Position != 1 {
		t.Errorf("%+v", got)
	}
	h.restart(small)
	if n := len(said(h, event.OfferCreated)); n != 1 {
		t.Errorf("the same node makes %d offers", n)
	}
	h.hear(h.workerMade(all[0]), h.workerEnded(all[0]))
	if n := len(said(h, event.AssignmentCreated)); n != 2 {
		t.Errorf("%d places when the worker has ended", n)
	}
}
