package sim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/execution"
	"fragua.dev/fragua/execution/agentclient"
	"fragua.dev/fragua/worker/provider"
)

// machine makes workers that exist in memory only, and survive the rooms.
type machine struct {
	mu      sync.Mutex
	rng     *rand.Rand
	faults  bool
	workers map[ident.Worker]*madeUp
	ended   chan provider.Ended
	check   *checker

	// Faults that are planted to see whether the checker finds them.
	immortal, twice bool
}

// madeUp is one worker.
type madeUp struct {
	m     *machine
	req   provider.Request
	lease time.Duration
	heard time.Time
	dead  chan struct{} // closed when it ends
	deaf  bool          // it does not answer, but lives: a zombie
	execs map[ident.Exec]*madeExec
	steps map[ident.Step]ident.Exec
}

type madeExec struct {
	x    agentapi.Exec
	over chan struct{}
}

func newMachine(seed uint64, faults bool, c *checker) *machine {
	return &machine{
		rng: rand.New(rand.NewPCG(seed, 7)), faults: faults, check: c,
		workers: map[ident.Worker]*madeUp{}, ended: make(chan provider.Ended, 10_000),
	}
}

// chance is true once in n times, if there are faults at all.
func (m *machine) chance(n int) bool { return m.faults && m.rng.IntN(n) == 0 }

func (m *machine) Kind() string { return "process" }

func (m *machine) Create(ctx context.Context, r provider.Request) (provider.Made, error) {
	pause(ctx, time.Millisecond)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.chance(20) {
		return provider.Made{}, provider.ErrCapacity
	}
	if m.workers[r.Worker] == nil {
		m.workers[r.Worker] = &madeUp{
			m: m, req: r, dead: make(chan struct{}), execs: map[ident.Exec]*madeExec{}, steps: map[ident.Step]ident.Exec{},
		}
	}
	return provider.Made{Worker: r.Worker, Tenant: r.Tenant, Address: string(r.Worker), Handle: "sim"}, nil
}

func (m *machine) ConfigureSecurity(_ context.Context, id ident.Worker, s provider.Security) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.workers[id]
	if w == nil {
		return provider.ErrGone
	}
	if w.lease > 0 {
		return nil
	}
	w.lease, w.heard = s.Lease, time.Now()
	go w.live()
	if m.chance(15) {
		after := time.Duration(m.rng.IntN(3000)) * time.Millisecond
		time.AfterFunc(after, func() { w.end(true, "killed by the simulation") })
	} else if m.chance(25) {
		after := time.Duration(m.rng.IntN(2000)) * time.Millisecond
		time.AfterFunc(after, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			w.deaf = true
		})
	}
	return nil
}

// live ends a worker whose lease has run out.
func (w *madeUp) live() {
	for {
		select {
		case <-w.dead:
			return
		case <-time.After(w.lease / 10):
		}
		w.m.mu.Lock()
		late := time.Since(w.heard) > w.lease
		w.m.mu.Unlock()
		if late {
			w.end(true, "its lease ran out")
			return
		}
	}
}

// end ends a worker and all it runs; unasked, the provider tells of it.
func (w *madeUp) end(unasked bool, reason string) {
	m := w.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.workers[w.req.Worker] != w {
		return
	}
	delete(m.workers, w.req.Worker)
	close(w.dead)
	for id, e := range w.execs {
		select {
		case <-e.over:
		default:
			m.check.stopped(w.req.Tenant, w.req.Job, w.req.Attempt, id)
		}
	}
	if unasked {
		m.ended <- provider.Ended{Worker: w.req.Worker, ExitCode: 1, Reason: reason}
	}
}

func (m *machine) worker(id ident.Worker) *madeUp {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.workers[id]
}

func (m *machine) Terminate(ctx context.Context, id ident.Worker, _ time.Duration) (int, error) {
	w := m.worker(id)
	if w == nil {
		return 0, provider.ErrGone
	}
	pause(ctx, 2*time.Millisecond)
	if m.immortal {
		return 0, nil
	}
	w.end(false, "")
	return 0, nil
}

func (m *machine) Logs(context.Context, ident.Worker) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("")), nil
}

func (m *machine) PortForward(context.Context, ident.Worker, uint16) (net.Conn, error) {
	return nil, errors.New("there are no ports here")
}

func (m *machine) Events() <-chan provider.Ended { return m.ended }

func (m *machine) Adopt(_ context.Context, known []provider.Made) (alive []ident.Worker, err error) {
	m.mu.Lock()
	keep := map[ident.Worker]bool{}
	for _, k := range known {
		if w := m.workers[k.Worker]; w != nil && w.lease > 0 {
			keep[k.Worker] = true
			alive = append(alive, k.Worker)
		}
	}
	var others []*madeUp
	for id, w := range m.workers {
		if !keep[id] {
			others = append(others, w)
		}
	}
	m.mu.Unlock()
	for _, w := range others {
		w.end(false, "")
	}
	return alive, nil
}

func (m *machine) Close() error { return nil }

// agent is the API of one worker.
type agent struct {
	m  *machine
	id ident.Worker
}

func (m *machine) dial(address string, _ ident.Tenant, _ ident.Worker) execution.Agent {
	return agent{m, ident.Worker(address)}
}

// reach returns the worker, when it answers.
func (a agent) reach(ctx context.Context) (*madeUp, error) {
	pause(ctx, time.Millisecond)
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	w := a.m.workers[a.id]
	if w == nil || a.m.chance(50) {
		return nil, agentclient.ErrUnreachable
	}
	if w.deaf {
		a.m.mu.Unlock()
		pause(ctx, 5*time.Second)
		a.m.mu.Lock()
		return nil, agentclient.ErrUnreachable
	}
	w.heard = time.Now()
	return w, nil
}

// Exec starts a step. How long it takes and how it ends is the last argument of
// its command: a duration, and ok, fail or coin.
func (a agent) Exec(ctx context.Context, r agentapi.ExecRequest) (agentapi.Exec, error) {
	w, err := a.reach(ctx)
	if err != nil {
		return agentapi.Exec{}, err
	}
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	if r.Attempt != w.req.Attempt || r.Job != w.req.Job {
		return agentapi.Exec{}, agentclient.ErrRefused
	}
	if id, ok := w.steps[r.Step]; ok {
		return w.execs[id].x, nil
	}
	e := &madeExec{x: agentapi.Exec{Exec: r.Exec, Step: r.Step, State: agentapi.Started, Started: time.Now()}, over: make(chan struct{})}
	w.steps[r.Step], w.execs[r.Exec] = r.Exec, e
	a.m.check.began(w.req.Tenant, r.Job, r.Attempt)
	if a.m.twice {
		a.m.check.began(w.req.Tenant, r.Job, r.Attempt+1)
	}
	took, _ := time.ParseDuration(r.Command[1])
	good := r.Command[2] == "ok" || r.Command[2] == "coin" && a.m.rng.IntN(2) == 0
	limit := time.Duration(r.TimeoutMS) * time.Millisecond
	go func() {
		select {
		case <-time.After(min(took, limit)):
		case <-w.dead:
			return
		}
		a.m.mu.Lock()
		defer a.m.mu.Unlock()
		select {
		case <-w.dead:
			return
		default:
		}
		e.x.State, e.x.Finished = agentapi.Completed, time.Now()
		switch {
		case took > limit:
			e.x.State, e.x.Code, e.x.Message, e.x.ExitCode = agentapi.Failed, agentapi.CodeTimeout, "timeout", 143
		case !good:
			e.x.State, e.x.Code, e.x.Message, e.x.ExitCode = agentapi.Failed, agentapi.CodeExit, "exit 1", 1
		}
		if !a.m.immortal {
			a.m.check.stopped(w.req.Tenant, r.Job, r.Attempt, r.Exec)
		}
		close(e.over)
	}()
	return e.x, nil
}

func (a agent) Complete(ctx context.Context, r agentapi.CompleteRequest) (agentapi.Exec, error) {
	w, err := a.reach(ctx)
	if err != nil {
		return agentapi.Exec{}, err
	}
	a.m.mu.Lock()
	e := w.execs[r.Exec]
	a.m.mu.Unlock()
	if e == nil {
		return agentapi.Exec{}, agentclient.ErrRefused
	}
	select {
	case <-e.over:
	case <-w.dead:
		return agentapi.Exec{}, agentclient.ErrUnreachable
	case <-time.After(time.Duration(r.WaitMS) * time.Millisecond):
	case <-ctx.Done():
		return agentapi.Exec{}, agentclient.ErrUnreachable
	}
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	return e.x, nil
}

func (a agent) Logs(ctx context.Context, exec ident.Exec, _ int64) (io.ReadCloser, error) {
	x, err := a.Complete(ctx, agentapi.CompleteRequest{Exec: exec, WaitMS: 3_600_000})
	if err == nil && x.State == agentapi.Started {
		err = agentclient.ErrUnreachable
	}
	return io.NopCloser(bytes.NewReader(nil)), err
}

func (a agent) Cancel(context.Context, agentapi.CancelRequest) (agentapi.Exec, error) {
	return agentapi.Exec{}, nil
}
func (a agent) Workspace(context.Context, io.Reader) error { return nil }
func (a agent) File(context.Context, string) (io.ReadCloser, string, error) {
	return nil, "", agentclient.ErrRefused
}

func (a agent) Lease(ctx context.Context) (agentapi.LeaseReply, error) {
	_, err := a.reach(ctx)
	return agentapi.LeaseReply{}, err
}
func (a agent) Close() {}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
