package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sweepTime bounds how long leftovers are hunted.
const sweepTime = 5 * time.Second

// sweep kills and reaps every child of this process, until there is none. What a
// step started and left is among them, as this process is their subreaper: a
// child's orphans become children in turn. It must not run beside a step.
func sweep() bool {
	for deadline := time.Now().Add(sweepTime); time.Now().Before(deadline); {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		switch {
		case err == syscall.ECHILD:
			return true
		case pid > 0 || err == syscall.EINTR:
			continue
		}
		for _, pid := range children() {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(200 * time.Microsecond)
	}
	return false
}

// stat returns what a process's file of this name says behind the process's own name:
// its state, its parent, and so on; nothing when it has gone.
func stat(file string) []string {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // the name may hold anything
}

// stopped says whether a process is there, and does not run.
func stopped(pid int) bool {
	fields := stat("/proc/" + strconv.Itoa(pid) + "/stat")
	return len(fields) > 0 && (fields[0] == "T" || fields[0] == "t")
}

// children returns the processes whose parent is this one.
func children() []int {
	var out []int
	self := os.Getpid()
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			continue
		}
		for _, f := range bytes.Fields(b) {
			if pid, err := strconv.Atoi(string(f)); err == nil {
				out = append(out, pid)
			}
		}
	}
	if len(out) > 0 {
		return out
	}
	// Not every kernel tells: look at everyone.
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range all {
		fields := stat(f)
		if len(fields) < 2 {
			continue
		}
		if ppid, _ := strconv.Atoi(fields[1]); ppid == self {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
				out = append(out, pid)
			}
		}
	}
	return out
}
