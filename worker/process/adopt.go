package process

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/worker/provider"
)

const lookEvery = 250 * time.Millisecond // at an adopted agent, which is nobody's child here

// Adopt takes over the agents that an earlier process recorded, and ends whatever
// else works in this provider's folder.
func (p *Provider) Adopt(ctx context.Context, known []provider.Made) ([]ident.Worker, error) {
	var alive []ident.Worker
	keep := map[string]bool{}
	spared := map[int]bool{}
	for _, m := range known {
		pid, ok := living(m.Handle)
		if !ok {
			continue
		}
		w := &worker{req: provider.Request{Worker: m.Worker, Tenant: m.Tenant, Job: m.Job}, made: m, taken: true, pid: pid}
		p.mu.Lock()
		p.workers[m.Worker] = w
		p.mu.Unlock()
		alive = append(alive, m.Worker)
		keep[filepath.Base(p.dir(pid))], spared[pid] = true, true
		p.wg.Go(func() { p.follow(w) })
	}
	names, err := os.ReadDir(p.cfg.Dir)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		name := n.Name()
		switch {
		case keep[name]:
			continue
		case strings.HasPrefix(name, "agent-"):
			continue
		case n.IsDir() && !p.idles(name):
			endTree(0, filepath.Join(p.cfg.Dir, name)) // what a worker left that nobody knows any more
			p.discard(filepath.Join(p.cfg.Dir, name))
		}
	}
	p.endAgents(spared)
	logs, _ := filepath.Glob(filepath.Join(p.cfg.Dir, "agent-*")) // the pattern is well formed
	for _, f := range logs {
		if !p.mine(f) && !fresh(f) {
			os.Remove(f)
		}
	}
	return alive, nil
}

// fresh says whether a log is that of an agent that is being started now: it has its
// name only when the process is there.
func fresh(file string) bool {
	info, err := os.Stat(file)
	return err == nil && strings.HasPrefix(filepath.Base(file), newWords) && time.Since(info.ModTime()) < time.Minute
}

// mine says whether a log is that of an agent that lives.
func (p *Provider) mine(file string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		if w.pid != 0 && p.said(w.pid) == file {
			return true
		}
	}
	for _, a := range p.idle {
		if p.said(a.pid) == file {
			return true
		}
	}
	return false
}

// idles says whether a folder is that of an agent of this process.
func (p *Provider) idles(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.idle {
		if filepath.Base(p.dir(a.pid)) == name {
			return true
		}
	}
	return false
}

// endAgents ends agents of an earlier process that have no worker on record: they
// work in this provider's folder itself.
func (p *Provider) endAgents(spared map[int]bool) {
	p.mu.Lock()
	for _, a := range p.idle {
		spared[a.pid] = true
	}
	p.mu.Unlock()
	for _, c := range allProcs() {
		cwd, err := os.Readlink("/proc/" + itoa(c.pid) + "/cwd")
		if err != nil || cwd != p.cfg.Dir || spared[c.pid] || c.pid == os.Getpid() || c.ppid == os.Getpid() {
			continue
		}
		if _, agent := living(handle(c.pid)); agent {
			for _, v := range hunt(c.pid, func(proc) bool { return false }) {
				kill(v.pid)
			}
		}
	}
}

const (
	stepsLook = 25 * time.Millisecond
	lastWords = 300 * time.Millisecond // for what steps said last to be fetched from their agent
)

// endSteps asks the steps of an adopted agent to end, as the agent would if it took
// orders from here, and waits for them, for grace at most.
func endSteps(agent int, grace time.Duration) {
	told := map[string]bool{}
	for deadline := time.Now().Add(grace); time.Now().Before(deadline); time.Sleep(stepsLook) {
		left := 0
		for _, c := range allProcs() {
			if c.ppid != agent || c.state == 'Z' {
				continue
			}
			if left++; !told[c.handle()] {
				told[c.handle()] = true
				tell(c.pid)
			}
		}
		if left == 0 {
			break
		}
	}
	if len(told) > 0 {
		time.Sleep(lastWords)
	}
}

// tell asks a process to end, once: with its group if it leads one, as steps do; what
// they left may not.
func tell(pid int) {
	whom := pid
	if group, err := syscall.Getpgid(pid); err == nil && group == pid {
		whom = -pid
	}
	syscall.Kill(whom, syscall.SIGTERM)
	syscall.Kill(whom, syscall.SIGCONT) // a stopped one hears nothing
}

// follow watches an adopted agent until it ends.
func (p *Provider) follow(w *worker) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-p.quit:
			return
		}
		if p.find(w.req.Worker) != w {
			return
		}
		if _, ok := living(w.made.Handle); !ok {
			p.died(w, w.pid, false, "its process ended")
			return
		}
	}
}
