package sim

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/identity"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/execution"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/sqldb"
	"fragua.dev/fragua/orchestration"
	"fragua.dev/fragua/scheduling"
	"fragua.dev/fragua/worker"
)

// permit lets everyone do everything: who may is not what is tested here.
type permit struct{}

func (permit) Decide(context.Context, authz.Question) authz.Answer { return authz.Answer{Permit: true} }

// noAuthority issues nothing: made-up workers speak no TLS.
type noAuthority struct{}

func (noAuthority) Issue(context.Context, string, time.Duration) (identity.Certificate, error) {
	return identity.Certificate{}, nil
}
func (noAuthority) Roots() (*x509.CertPool, []byte) { return nil, nil }

type room interface {
	Name() string
	DB() *sqldb.DB
	Subscriptions() []bus.Subscription
	Run(context.Context) error
	Close() error
}

// house is the rooms of a submission's way, without their outer walls.
type house struct {
	t     *testing.T
	dir   string
	m     *machine
	check *checker
	fault bus.Faults
	log   *slog.Logger

	rooms []room
	bus   *bus.Bus
	mux   *http.ServeMux
	stop  context.CancelFunc
	done  chan struct{}
}

func (h *house) open() {
	h.t.Helper()
	must := func(err error) {
		if err != nil {
			h.t.Fatal(err)
		}
	}
	ctx, ids := context.Background(), ident.NewSource(time.Now)
	o, err := orchestration.Open(ctx, orchestration.Config{Dir: h.dir, Now: time.Now, IDs: ids, Log: h.log, Decider: permit{}})
	must(err)
	s, err := scheduling.Open(ctx, scheduling.Config{Dir: h.dir, Now: time.Now, IDs: ids, Log: h.log, Decider: permit{}, Nodes: []scheduling.NodeConfig{
		{ID: "n1", Provider: "process", Zone: "z1", Pool: "default", Quota: spec.Quota{CPUm: 1000, MemoryMB: 1024, IO: 100}},
		{ID: "n2", Provider: "process", Zone: "z2", Pool: "default", Quota: spec.Quota{CPUm: 2000, MemoryMB: 2048, IO: 100}},
	}})
	must(err)
	w, err := worker.Open(ctx, worker.Config{Dir: h.dir, Now: time.Now, IDs: ids, Log: h.log, Decider: permit{}, Authority: noAuthority{}, Provider: h.m, Nodes: []ident.Node{"n1", "n2"}})
	must(err)
	e, err := execution.Open(ctx, execution.Config{Dir: h.dir, Now: time.Now, IDs: ids, Log: h.log, Decider: permit{}, Dial: h.m.dial})
	must(err)
	h.rooms = []room{o, s, w, e}
	h.bus = bus.New(bus.Config{Log: h.log, Now: time.Now, Faults: h.fault, Alert: func(e event.Event, room string, err error) {
		h.check.mu.Lock()
		defer h.check.mu.Unlock()
		h.check.fault("%s set %s aside: %v", room, e.ID, err)
	}})
	h.mux = http.NewServeMux()
	api := httpapi.New(h.mux, "test")
	o.Routes(api)
	s.Routes(api)
	for _, r := range h.rooms {
		h.bus.Listen(r.Name(), r.DB(), r.Subscriptions()...)
		h.bus.Carry(r.Name(), r.DB())
	}
	var tap []bus.Subscription
	for _, entry := range event.Catalog() {
		tap = append(tap, bus.Subscription{Subject: entry.Subject, Handle: func(_ context.Context, e event.Event) error {
			h.check.hear(e)
			return nil
		}})
	}
	h.bus.Listen("tap", nil, tap...)
	must(h.bus.Start(ctx))
	running, stop := context.WithCancel(ctx)
	h.stop, h.done = stop, make(chan struct{})
	left := len(h.rooms)
	quiet := make(chan struct{}, left)
	for _, r := range h.rooms {
		go func() {
			if err := r.Run(running); err != nil && running.Err() == nil {
				h.t.Errorf("%s: %v", r.Name(), err)
			}
			quiet <- struct{}{}
		}()
	}
	go func() {
		for range left {
			<-quiet
		}
		close(h.done)
	}()
}

// crash takes the rooms down in the midst of things.
func (h *house) crash() {
	h.stop()
	h.bus.Stop()
	<-h.done
	for _, r := range h.rooms {
		if err := r.Close(); err != nil {
			h.t.Errorf("%s: %v", r.Name(), err)
		}
	}
}

// call speaks to the API as a tenant's owner.
func (h *house) call(method, path string, in, out any) int {
	h.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		h.t.Fatal(err)
	}
	if in == nil {
		body = nil
	}
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r = r.WithContext(authz.With(r.Context(), authz.Principal{Sub: "sim", Tenant: "acme", Scopes: []string{"*"}}))
	w := httptest.NewRecorder()
	h.mux.ServeHTTP(w, r)
	if out != nil && w.Code < 300 {
		if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
			h.t.Fatalf("%s %s: %v", method, path, err)
		}
	}
	if w.Code >= 500 {
		h.t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return w.Code
}

func command(rng *rand.Rand) []string {
	took := time.Duration(rng.IntN(1500)) * time.Millisecond
	return []string{"sim", took.String(), []string{"ok", "ok", "ok", "fail", "coin"}[rng.IntN(5)]}
}

// TestHouse runs whole houses by seeds, each with its own faults.
func TestHouse(t *testing.T) {
	seeds := uint64(8)
	if s := os.Getenv("SIM_SEEDS"); s != "" {
		fmt.Sscan(s, &seeds)
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) { simulate(t, dir, seed, true, nil) })
		})
	}
}

// simulate runs one house and returns the checker's verdict through t; spoil may
// plant a fault that the checker has to find.
func simulate(t *testing.T, dir string, seed uint64, faults bool, spoil func(*house)) []string {
	rng := rand.New(rand.NewPCG(seed, 1))
	c := newChecker()
	h := &house{t: t, dir: dir, check: c, m: newMachine(seed, faults, c), log: slog.New(slog.DiscardHandler)}
	if os.Getenv("SIM_LOG") != "" {
		h.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if faults {
		luck := rand.New(rand.NewPCG(seed, 2))
		h.fault = func(room string, _ event.Event) []time.Duration {
			c.mu.Lock()
			defer c.mu.Unlock()
			if room == "tap" {
				return []time.Duration{0}
			}
			switch luck.IntN(10) {
			case 0:
				return nil
			case 1:
				return []time.Duration{0, time.Duration(luck.IntN(2000)) * time.Millisecond}
			case 2:
				return []time.Duration{time.Duration(luck.IntN(1000)) * time.Millisecond}
			}
			return []time.Duration{0}
		}
	}
	h.open()
	if spoil != nil {
		spoil(h)
	}
	jobs := map[string]bool{}
	for i := range 30 {
		if faults && (i == 10 || i == 20) {
			h.crash()
			time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
			h.open()
		}
		id, retries := fmt.Sprintf("job_%d", i), rng.IntN(3)
		s := map[string]any{"retries": retries, "retry_backoff_ms": 100 + rng.IntN(1000), "timeout_ms": 5000}
		var steps []map[string]any
		for range 1 + rng.IntN(3) {
			steps = append(steps, map[string]any{"command": command(rng), "retries": rng.IntN(2), "retry_backoff_ms": 50})
		}
		s["steps"] = steps
		if code := h.call("POST", "/jobs", map[string]any{"job_id": id, "spec": s}, nil); code != 201 {
			t.Fatalf("POST /jobs: %d", code)
		}
		c.accepted("acme", ident.Job(id), retries)
		jobs[id] = true
		time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond)
		if rng.IntN(4) == 0 {
			code := h.call("POST", "/jobs/"+fmt.Sprintf("job_%d", max(0, i-rng.IntN(4)))+"/cancel", map[string]any{}, nil)
			if code != 200 && code != 409 {
				t.Errorf("POST /cancel: %d", code)
			}
		}
	}
	states := map[string]string{}
	for deadline := time.Now().Add(time.Hour); len(states) < len(jobs) && time.Now().Before(deadline); time.Sleep(time.Second) {
		for id := range jobs {
			var j struct {
				State string `json:"state"`
			}
			h.call("GET", "/jobs/"+id, nil, &j)
			switch j.State {
			case "SUCCEEDED", "FAILED", "CANCELLED", "TERMINATED":
				states["acme/"+id] = j.State
			}
		}
	}
	time.Sleep(10 * time.Minute) // until the last words are heard, and zombies gave up
	var nodes struct {
		Items []struct {
			ID          string
			Free, Total spec.Quota
		}
	}
	wrong := c.verdict(states)
	h.call("GET", "/nodes", nil, &nodes)
	for _, n := range nodes.Items {
		if n.Free != n.Total {
			wrong = append(wrong, fmt.Sprintf("node %s has %+v left of %+v", n.ID, n.Free, n.Total))
		}
	}
	if len(nodes.Items) != 2 {
		wrong = append(wrong, fmt.Sprintf("%d nodes", len(nodes.Items)))
	}
	if spoil == nil {
		t.Logf("%v; %d distinct events", tally(states), len(c.seen))
		for _, w := range wrong {
			t.Error(w)
		}
	}
	h.crash()
	return wrong
}

func tally(states map[string]string) map[string]int {
	n := map[string]int{}
	for _, s := range states {
		n[s]++
	}
	return n
}

// TestCheckerFindsPlantedFaults shows that the checker is no rubber stamp: each
// plant breaks one promise, and must be found.
func TestCheckerFindsPlantedFaults(t *testing.T) {
	plants := map[string]struct {
		want  string
		plant func(*house)
	}{
		"a worker that nobody can end": {"has ended, and something of it runs", func(h *house) { h.m.immortal = true }},
		"a job that ends twice": {"ended 2 times", func(h *house) {
			go func() {
				time.Sleep(20 * time.Second)
				emit(h, 0, event.JobFailed.Event(event.About{Tenant: "acme", Key: "job_3", Twist: "9", At: time.Now()}, event.JobFault{Job: "job_3", Final: true}))
			}()
		}},
		"a worker that runs a step again under another attempt": {"two attempts are alive", func(h *house) { h.m.twice = true }},
		"a worker's end that is never told": {"more than worker ends", func(h *house) {
			go func() {
				time.Sleep(20 * time.Second)
				emit(h, 1, event.AssignmentCreated.Event(event.About{Tenant: "acme", Key: "job_99", Twist: "1", At: time.Now()}, event.Assignment{Assignment: "asg_99", Job: "job_99", Node: "n9"}))
			}()
		}},
	}
	for name, p := range plants {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				wrong := simulate(t, dir, 3, false, p.plant)
				for _, w := range wrong {
					if strings.Contains(w, p.want) {
						return
					}
				}
				t.Errorf("not found; the verdict was %q", wrong)
			})
		})
	}
}

func emit(h *house, room int, e event.Event) {
	err := h.rooms[room].DB().Write(context.Background(), func(tx *sqldb.Tx) error { return tx.Emit(e) })
	if err != nil {
		h.t.Error(err)
	}
}
