package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fragua.dev/fragua/contract/agentapi"
)

const (
	newWords = "agent-new-" // begins the name of an agent's log until its process has one
	shown    = "fragua"     // in listings of processes, where /proc/self/exe says nothing
)

// agent is one agent process that this process started.
type agent struct {
	pid     int
	handle  string
	began   uint64 // in ticks since boot
	address string
	control net.Conn
	reports chan agentapi.Report // answers to orders
	gone    chan struct{}        // closed when the process has ended
	parked  time.Time
	roots   []byte // that it knows

	mu  sync.Mutex
	job *worker // whose end is to be told when the process dies
}

// start starts an agent, and waits until it is ready.
func (p *Provider) start(ctx context.Context) (*agent, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(fds[1]), "control")
	defer theirs.Close()
	mine := os.NewFile(uintptr(fds[0]), "control")
	conn, err := net.FileConn(mine)
	mine.Close()
	if err != nil {
		return nil, err
	}
	words, err := os.CreateTemp(p.cfg.Dir, newWords+"*")
	if err != nil {
		conn.Close()
		return nil, err
	}
	defer words.Close()
	cmd := exec.Command(p.cfg.Command[0], p.cfg.Command[1:]...)
	cmd.Args[0] = shown
	// Nothing of the server's own environment but PATH, which steps need. One
	// processor does: an agent waits most of the time, and there are many of them.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GOMAXPROCS=1", "GOGC=800", agentMark + "=1"}
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.cfg.Dir, words, words
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	agents.starting.RLock()
	err = cmd.Start()
	if err == nil {
		enlist(cmd.Process.Pid)
	}
	agents.starting.RUnlock()
	if err != nil {
		conn.Close()
		os.Remove(words.Name())
		return nil, err
	}
	a := &agent{pid: cmd.Process.Pid, control: conn, reports: make(chan agentapi.Report, 4), gone: make(chan struct{})}
	self, _ := readProc(a.pid) // it is there, if only until watch takes note of its end
	self.pid = a.pid
	a.handle, a.began = self.handle(), self.began()
	if err := os.Rename(words.Name(), p.said(a.pid)); err != nil {
		p.cfg.Log.Warn("an agent's words cannot be kept", "error", err)
	}
	p.wg.Go(a.listen)
	go p.watch(a, cmd)
	select {
	case r := <-a.reports:
		a.address = r.Address
		return a, nil
	case <-a.gone:
		return nil, errors.New("an agent ended before it was ready")
	case <-ctx.Done():
		a.kill()
		return nil, fmt.Errorf("an agent did not get ready: %w", ctx.Err())
	}
}

// listen hands an agent's reports on, until its end.
func (a *agent) listen() {
	defer close(a.reports)
	in := bufio.NewScanner(a.control)
	for in.Scan() {
		var r agentapi.Report
		if json.Unmarshal(in.Bytes(), &r) != nil {
			return // not an agent any more
		}
		select {
		case a.reports <- r:
		case <-a.gone:
			return
		}
	}
}

// watch waits for the end of an agent, and ends what it left.
func (p *Provider) watch(a *agent, cmd *exec.Cmd) {
	err := cmd.Wait()
	strike(a.pid)
	close(a.gone)
	if err != nil || !a.idle() { // else it has shown before that nothing was left
		endOrphans(a.began)
	}
	a.control.Close()
	os.Remove(p.said(a.pid))
	if a.idle() {
		p.clear(a.pid)
	}
	a.mu.Lock()
	w := a.job
	a.job = nil
	a.mu.Unlock()
	if w == nil {
		return
	}
	reason, expired := "its process ended", cmd.ProcessState.ExitCode() == agentapi.ExitExpired
	switch {
	case expired:
		reason = "nobody called it for longer than its lease"
	case err != nil:
		reason = "its process ended: " + err.Error()
	}
	p.died(w, a.pid, expired, reason)
}

func (a *agent) reserve(w *worker) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.job = w
}

func (a *agent) idle() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.job == nil
}

// release has the end of the process no longer told.
func (a *agent) release() { a.reserve(nil) }

func (a *agent) alive() bool {
	select {
	case <-a.gone:
		return false
	default:
		return true
	}
}

// ask gives an order, and waits for its report.
func (a *agent) ask(ctx context.Context, o agentapi.Order) (agentapi.Report, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return agentapi.Report{}, err
	}
	if d, ok := ctx.Deadline(); ok {
		a.control.SetWriteDeadline(d)
	}
	if _, err := a.control.Write(append(b, '\n')); err != nil {
		return agentapi.Report{}, fmt.Errorf("the agent takes no orders: %w", err)
	}
	for {
		select {
		case r, ok := <-a.reports:
			if !ok {
				return r, errors.New("the agent ended")
			}
			if r.Worker == o.Worker {
				return r, nil
			}
		case <-ctx.Done():
			return agentapi.Report{}, fmt.Errorf("the agent does not answer: %w", ctx.Err())
		}
	}
}

// dismiss ends an idle agent.
func (a *agent) dismiss() { a.control.Close() }

// kill ends an agent at once.
func (a *agent) kill() {
	if a.alive() {
		syscall.Kill(a.pid, syscall.SIGKILL)
	}
	a.control.Close()
}
