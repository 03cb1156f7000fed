package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/scratch"
	"fragua.dev/fragua/worker/provider"
)

const (
	startTime = 20 * time.Second // for an agent to say that it is ready
	takeTime  = 10 * time.Second
	endTime   = 10 * time.Second // beyond the grace
	maxSaid   = 1 << 20          // bytes of an agent's own words that are shown

	asidePrefix = "left-" // of what could not be removed
)

// DefaultMaxWorkers is how many workers jobs may have unless Config says otherwise.
const DefaultMaxWorkers = 512

// Config is what a Provider is made of.
type Config struct {
	Dir        string        // holds the workers' folders; nobody else may use it
	Command    []string      // starts an agent
	MaxWorkers int           // for jobs, at the same time; 0 is DefaultMaxWorkers
	Warm       int           // idle agents that are kept ready
	IdleMax    int           // idle agents that are kept at most; 0 is 64
	IdleTTL    time.Duration // after which an idle agent beyond Warm ends; 0 is 30 s
	Log        *slog.Logger
}

// Provider makes workers out of agent processes. An agent that is provably clean
// after a job takes another.
type Provider struct {
	cfg    Config
	events chan provider.Ended
	wg     sync.WaitGroup
	quit   chan struct{}

	mu      sync.Mutex
	closed  bool
	idle    []*agent // the last one was used last
	workers map[ident.Worker]*worker
}

// worker is one that was created and not terminated.
type worker struct {
	req   provider.Request
	agent *agent // nil for one that was adopted
	made  provider.Made
	taken bool
	busy  sync.Mutex // one call at a time
	pid   int        // of one that was adopted
}

// agentMark stands in the environment of agents. A program that takes no notice of
// its arguments, as a test without a main of its own does, would start itself
// without end.
const agentMark = "FRAGUA_IS_AGENT"

// New returns a provider; it starts nothing yet.
func New(cfg Config) (*Provider, error) {
	if os.Getenv(agentMark) != "" {
		return nil, errors.New("process: this process was started as an agent, and makes no workers")
	}
	if cfg.MaxWorkers == 0 {
		cfg.MaxWorkers = DefaultMaxWorkers
	}
	if cfg.IdleMax == 0 {
		cfg.IdleMax = 64
	}
	if cfg.IdleTTL == 0 {
		cfg.IdleTTL = 30 * time.Second
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// What an agent leaves behind when it is killed becomes this process's child.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("process: subreaper: %w", err)
	}
	p := &Provider{cfg: cfg, events: make(chan provider.Ended, 64*(cfg.MaxWorkers+provider.MaxByHand)), quit: make(chan struct{}), workers: map[ident.Worker]*worker{}}
	p.wg.Go(p.tend)
	return p, nil
}

// Kind returns process.
func (p *Provider) Kind() string { return "process" }

// Containment says, for people, what this provider contains and what not.
func Containment() string {
	return "The process provider does not isolate: steps run as the user that runs fragua, with its files and network. " +
		"Each job has a folder, an environment and an identity of its own, and every process that it leaves is ended (by process group and subreaper)."
}

// Create reserves an agent for a worker.
func (p *Provider) Create(ctx context.Context, r provider.Request) (provider.Made, error) {
	if !ident.Valid(string(r.Worker)) {
		return provider.Made{}, fmt.Errorf("%w: its name is not valid", provider.ErrSpec)
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return provider.Made{}, errors.New("process: the provider is closed")
	}
	if w := p.workers[r.Worker]; w != nil {
		p.mu.Unlock()
		w.busy.Lock()
		defer w.busy.Unlock()
		return w.made, nil
	}
	if p.full(r.Job) {
		p.mu.Unlock()
		return provider.Made{}, provider.ErrCapacity
	}
	w := &worker{req: r}
	w.busy.Lock()
	defer w.busy.Unlock()
	p.workers[r.Worker] = w
	a := p.pop()
	p.mu.Unlock()
	if a == nil {
		var err error
		if a, err = p.start(ctx); err != nil {
			p.drop(r.Worker, w)
			return provider.Made{}, fmt.Errorf("process: %w", err)
		}
	}
	a.reserve(w)
	w.agent = a
	w.made = provider.Made{Worker: r.Worker, Tenant: r.Tenant, Job: r.Job, Address: a.address, Handle: a.handle}
	return w.made, nil
}

// full says whether there are as many workers as there may be of those for jobs, or of
// those made by hand: neither takes from the other.
func (p *Provider) full(job ident.Job) bool {
	n := 0
	for _, w := range p.workers {
		if (w.req.Job == "") == (job == "") {
			n++
		}
	}
	if job == "" {
		return n >= provider.MaxByHand
	}
	return n >= p.cfg.MaxWorkers
}

// pop takes an idle agent.
func (p *Provider) pop() *agent {
	for n := len(p.idle); n > 0; n = len(p.idle) {
		a := p.idle[n-1]
		p.idle = p.idle[:n-1]
		if a.alive() {
			return a
		}
	}
	return nil
}

func (p *Provider) drop(id ident.Worker, w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.workers[id] == w {
		delete(p.workers, id)
	}
}

func (p *Provider) find(id ident.Worker) *worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.workers[id]
}

// ConfigureSecurity gives a worker its identity; from then on it serves.
func (p *Provider) ConfigureSecurity(ctx context.Context, id ident.Worker, s provider.Security) error {
	w := p.find(id)
	if w == nil {
		return provider.ErrGone
	}
	w.busy.Lock()
	defer w.busy.Unlock()
	if w.taken || w.agent == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, takeTime)
	defer cancel()
	var roots []byte // an agent keeps what it was told
	if !bytes.Equal(w.agent.roots, s.Roots) {
		roots = s.Roots
	}
	r, err := w.agent.ask(ctx, agentapi.Order{
		Op: "take", Worker: id, Tenant: w.req.Tenant, Job: w.req.Job, Attempt: w.req.Attempt, Dir: p.dir(w.agent.pid),
		Cert: s.Certificate.Cert, Key: s.Certificate.Key, Shared: s.Certificate.Shared, Roots: roots, Client: s.Client, LeaseMS: s.Lease.Milliseconds(),
		AloneMS: s.Alone.Milliseconds(),
	})
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	if err != nil {
		return fmt.Errorf("process: %w", err)
	}
	w.agent.roots, w.taken = s.Roots, true
	return nil
}

// dir returns the folder of the workers of one agent: an empty one serves the next
// worker, too.
func (p *Provider) dir(pid int) string { return filepath.Join(p.cfg.Dir, "slot-"+strconv.Itoa(pid)) }

// Terminate ends a worker, and everything that it started.
func (p *Provider) Terminate(ctx context.Context, id ident.Worker, grace time.Duration) (int, error) {
	w := p.find(id)
	if w == nil {
		return 0, provider.ErrGone
	}
	w.busy.Lock()
	defer w.busy.Unlock()
	if p.find(id) != w {
		return 0, provider.ErrGone
	}
	a := w.agent
	if a == nil {
		endSteps(w.pid, grace)
		endTree(w.pid, p.dir(w.pid))
		p.drop(id, w)
		p.clear(w.pid)
		return 0, nil
	}
	a.release()
	if !w.taken {
		p.drop(id, w)
		p.park(a)
		return 0, nil
	}
	ask, cancel := context.WithTimeout(ctx, grace+endTime)
	defer cancel()
	r, err := a.ask(ask, agentapi.Order{Op: "end", Worker: id, GraceMS: grace.Milliseconds()})
	code := 0
	switch {
	case err == nil && r.Clean:
		p.drop(id, w)
		p.park(a)
		return 0, nil
	case err == nil:
		p.cfg.Log.Warn("a worker could not show that nothing of its job is left; its process ends", "worker_id", id)
	default:
		code = 137
	}
	a.kill()
	endTree(a.pid, p.dir(a.pid))
	select {
	case <-a.gone:
		endOrphans(a.began)
	case <-time.After(huntTime):
	}
	p.drop(id, w)
	p.clear(a.pid)
	return code, nil
}

// clear removes the folder of an agent that has ended. What cannot be removed must not
// be found by the next process of that number: it is put aside, told once, and tried
// again at the next start.
func (p *Provider) clear(pid int) { p.discard(p.dir(pid)) }

func (p *Provider) discard(dir string) {
	err := scratch.Remove(dir)
	if err == nil {
		return
	}
	aside := dir
	if !strings.HasPrefix(filepath.Base(dir), asidePrefix) {
		aside = filepath.Join(p.cfg.Dir, asidePrefix+filepath.Base(dir)+"-"+strconv.FormatInt(time.Now().UnixNano(), 36))
		if moved := os.Rename(dir, aside); moved != nil {
			err = errors.Join(err, moved)
		}
	}
	p.cfg.Log.Warn("what a job left in its folder cannot be removed; remove it by hand", "folder", aside, "error", err)
}

// park keeps an agent for the next worker, or ends it when there are enough.
func (p *Provider) park(a *agent) {
	p.mu.Lock()
	if !p.closed && a.alive() && len(p.idle) < p.cfg.IdleMax {
		a.parked = time.Now()
		p.idle = append(p.idle, a)
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	a.dismiss()
}

// tend keeps as many agents warm as was asked for, and no more for long.
func (p *Provider) tend() {
	t := time.NewTicker(p.cfg.IdleTTL / 4)
	defer t.Stop()
	for {
		p.mu.Lock()
		var old []*agent
		for len(p.idle) > p.cfg.Warm && time.Since(p.idle[0].parked) > p.cfg.IdleTTL {
			old = append(old, p.idle[0])
			p.idle = p.idle[1:]
		}
		missing := !p.closed && len(p.idle) < p.cfg.Warm && len(p.workers) == 0
		p.mu.Unlock()
		for _, a := range old {
			a.dismiss()
		}
		if missing {
			ctx, cancel := context.WithTimeout(context.Background(), startTime)
			a, err := p.start(ctx)
			cancel()
			if err != nil {
				p.cfg.Log.Warn("an agent cannot be kept ready", "error", err)
			} else {
				p.park(a)
				continue
			}
		}
		select {
		case <-t.C:
		case <-p.quit:
			return
		}
	}
}

// died tells of a worker whose agent ended, once nothing of it is left.
func (p *Provider) died(w *worker, pid int, expired bool, reason string) {
	endTree(pid, p.dir(pid))
	go p.reap() // it ends by itself, or with the provider
	p.mu.Lock()
	known := p.workers[w.req.Worker] == w
	if known {
		delete(p.workers, w.req.Worker)
	}
	p.mu.Unlock()
	if !known {
		return
	}
	p.clear(pid)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.events <- provider.Ended{Worker: w.req.Worker, ExitCode: 1, Expired: expired, Reason: reason} // there is room for every worker
	}
}

// Logs returns what the agent of a worker said.
func (p *Provider) Logs(_ context.Context, id ident.Worker) (io.ReadCloser, error) {
	w := p.find(id)
	if w == nil {
		return nil, provider.ErrGone
	}
	pid := w.pid
	if w.agent != nil {
		pid = w.agent.pid
	}
	f, err := os.Open(p.said(pid))
	if errors.Is(err, os.ErrNotExist) {
		return nil, provider.ErrGone
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, maxSaid), f}, err
}

func (p *Provider) said(pid int) string {
	return filepath.Join(p.cfg.Dir, "agent-"+strconv.Itoa(pid)+".log")
}

// PortForward connects to a port of this machine, where the worker's steps listen.
func (p *Provider) PortForward(ctx context.Context, id ident.Worker, port uint16) (net.Conn, error) {
	if p.find(id) == nil {
		return nil, provider.ErrGone
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
}

// Events tells of workers that ended unasked.
func (p *Provider) Events() <-chan provider.Ended { return p.events }

// Close lets go of workers that have a job, and ends idle agents.
func (p *Provider) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	idle := p.idle
	p.idle = nil
	var busy []*agent
	for _, w := range p.workers {
		if w.agent != nil {
			busy = append(busy, w.agent)
		}
	}
	p.mu.Unlock()
	close(p.quit)
	for _, a := range idle {
		a.dismiss()
	}
	for _, a := range busy {
		a.release()
		a.control.Close()
	}
	p.wg.Wait()
	close(p.events)
	return nil
}
