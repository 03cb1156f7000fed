package agent

import (
	"os"
	"path/filepath"
)

// slack is by how much the kernel may delay this process's timers.
const slack = "4000000" // nanoseconds

// relax lets the kernel gather this process's timers. Go's monitor thread sleeps
// for 20 µs at a time while a process is busy; with a process for each job that
// cost a quarter of an agent's CPU time (measured with perf on 2 cores, 20 agents).
// Threads that are started later inherit it. Where it cannot be set, nothing is lost.
func relax() {
	threads, _ := filepath.Glob("/proc/self/task/*") // the pattern is well formed
	for _, t := range threads {
		_ = os.WriteFile("/proc/"+filepath.Base(t)+"/timerslack_ns", []byte(slack), 0)
	}
}
