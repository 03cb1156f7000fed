package process

import (
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// agents are the agents that this process started and whose end it has not taken note of,
// of all its providers. Whoever starts one holds the lock for reading until it stands
// there, so that who holds it for writing sees no child that is about to.
var agents = struct {
	starting sync.RWMutex
	mu       sync.Mutex
	pids     map[int]bool
}{pids: map[int]bool{}}

func enlist(pid int) {
	agents.mu.Lock()
	defer agents.mu.Unlock()
	agents.pids[pid] = true
}

// strike takes an agent off the list, whose end has been taken note of.
func strike(pid int) {
	agents.mu.Lock()
	defer agents.mu.Unlock()
	delete(agents.pids, pid)
}

func enlisted(pid int) bool {
	agents.mu.Lock()
	defer agents.mu.Unlock()
	return agents.pids[pid]
}

// endOrphans ends what an agent that has died left to this process, its subreaper, and
// what no trace leads to: not its environment, and not where it works. since is when the
// agent started, in ticks since boot.
func endOrphans(since uint64) {
	for deadline := time.Now().Add(huntTime); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if endOrphansOnce(since) == 0 {
			return
		}
	}
}

// endOrphansOnce says how many there were: their children come to this process in turn.
func endOrphansOnce(since uint64) (n int) {
	agents.starting.Lock()
	defer agents.starting.Unlock()
	for _, c := range allProcs() {
		if orphan(c, since) {
			n++
			kill(c.pid) // nobody but this package takes note of its end: the number is still its own
			syscall.Wait4(c.pid, nil, syscall.WNOHANG, nil)
		}
	}
	return n
}

// orphan says whether a child of this process descends from an agent that has died. Those
// that live keep their own descendants. Agents are in sessions of their own, and so is
// everything that descends from them, whatever it does: what this process started besides
// is in its own session, and what it had before it started agents is older than they are.
// A server that is process 1 of a container is also left what strangers leave behind there:
// what of that is younger than the agent is taken for the agent's.
func orphan(c proc, since uint64) bool {
	if c.ppid != os.Getpid() || c.began() < since || enlisted(c.pid) {
		return false
	}
	session, err := unix.Getsid(c.pid)
	if err != nil {
		return false
	}
	own, err := unix.Getsid(0)
	return err == nil && session != own
}
