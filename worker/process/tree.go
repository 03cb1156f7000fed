package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const huntTime = 5 * time.Second

// proc is what /proc tells of a process.
type proc struct {
	pid, ppid int
	start     string // since boot, in ticks: with pid, a name that is never given twice
	state     byte
}

func readProc(pid int) (proc, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return proc{}, false
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // the name before it may hold anything
	if len(f) < 20 {
		return proc{}, false
	}
	ppid, err := strconv.Atoi(string(f[1]))
	return proc{pid, ppid, string(f[19]), f[0][0]}, err == nil
}

func allProcs() []proc {
	names, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	var out []proc
	for _, n := range names {
		if pid, err := strconv.Atoi(filepath.Base(n)); err == nil {
			if p, ok := readProc(pid); ok {
				out = append(out, p)
			}
		}
	}
	return out
}

// began is when the process started, in ticks since boot; 0 if that is not known.
func (p proc) began() uint64 {
	n, _ := strconv.ParseUint(p.start, 10, 64) // the kernel wrote a number
	return n
}

// handle names a process for ever: PID:START.
func (p proc) handle() string { return fmt.Sprintf("%d:%s", p.pid, p.start) }

// handle names the process that has a pid now.
func handle(pid int) string {
	p, _ := readProc(pid)
	p.pid = pid // also of one that has gone
	return p.handle()
}

// living returns the pid that a handle names, if that process lives and is an
// agent.
func living(handle string) (int, bool) {
	left, start, _ := strings.Cut(handle, ":")
	pid, err := strconv.Atoi(left)
	if err != nil || pid <= 1 {
		return 0, false
	}
	p, ok := readProc(pid)
	if !ok || p.start != start || p.state == 'Z' {
		return 0, false
	}
	cmd, err := os.ReadFile("/proc/" + left + "/cmdline")
	return pid, err == nil && bytes.Contains(cmd, []byte("\x00agent"))
}

// endTree kills a process, what descends from it, and whatever else belongs to a
// worker's folder: what has its workspace there, or works in it. It returns when
// nothing is found any more.
func endTree(root int, folder string) {
	for deadline := time.Now().Add(huntTime); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		victims := hunt(root, func(p proc) bool { return belongs(p.pid, folder) })
		if len(victims) == 0 {
			return
		}
		for _, v := range victims {
			syscall.Kill(v.pid, syscall.SIGKILL)
		}
		for _, v := range victims { // those that became ours are reaped by us; for others this does nothing
			if v.pid != root {
				syscall.Wait4(v.pid, nil, syscall.WNOHANG, nil)
			}
		}
	}
}

// Of processes whose agent died the server is the parent, and has to take note of
// their end.
const (
	reapEvery = 200 * time.Millisecond
	reapTries = 25
)

// reap takes note, for a while, of children that have ended and that nobody waits for:
// who is waited for is not seen twice.
func (p *Provider) reap() {
	t := time.NewTicker(reapEvery)
	defer t.Stop()
	before := map[string]bool{}
	for range reapTries {
		now := map[string]bool{}
		for _, c := range allProcs() {
			if c.ppid != os.Getpid() || c.state != 'Z' {
				continue
			}
			if before[c.handle()] {
				syscall.Wait4(c.pid, nil, syscall.WNOHANG, nil)
			}
			now[c.handle()] = true
		}
		before = now
		select {
		case <-t.C:
		case <-p.quit:
			return
		}
	}
}

// hunt returns the living processes that descend from root, root itself, and
// those that match.
func hunt(root int, match func(proc) bool) []proc {
	all := allProcs()
	children := map[int][]proc{}
	var out []proc
	seen := map[int]bool{os.Getpid(): true}
	take := func(p proc) {
		if !seen[p.pid] && p.state != 'Z' {
			out = append(out, p)
		}
		seen[p.pid] = true
	}
	for _, p := range all {
		children[p.ppid] = append(children[p.ppid], p)
	}
	var down func(pid int)
	down = func(pid int) {
		for _, c := range children[pid] {
			if !seen[c.pid] {
				take(c)
				down(c.pid)
			}
		}
	}
	for _, p := range all {
		if root > 1 && p.pid == root || match(p) {
			take(p)
			down(p.pid)
		}
	}
	return out
}

// belongs says whether a process was started by a worker with this folder.
func belongs(pid int, folder string) bool {
	name := "/proc/" + strconv.Itoa(pid)
	env, err := os.ReadFile(name + "/environ")
	if err != nil {
		return false
	}
	for _, v := range bytes.Split(env, []byte{0}) {
		if s, ok := bytes.CutPrefix(v, []byte("FRAGUA_WORKSPACE=")); ok && within(string(s), folder) {
			return true
		}
	}
	cwd, err := os.Readlink(name + "/cwd")
	return err == nil && within(strings.TrimSuffix(cwd, " (deleted)"), folder)
}

func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

func itoa(n int) string { return strconv.Itoa(n) }

func kill(pid int) { syscall.Kill(pid, syscall.SIGKILL) }
