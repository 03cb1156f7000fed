package program

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// A Process is what /proc tells of one. With its start, its number is a name that
// is never given twice.
type Process struct {
	Pid, Parent int
	Start       string // since boot, in ticks
}

// read returns a process that lives; one that is only waited for does not.
func read(pid int) (Process, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Process{}, false
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // the name before it may hold anything
	if len(f) < 20 || f[0][0] == 'Z' || f[0][0] == 'X' {
		return Process{}, false
	}
	parent, err := strconv.Atoi(string(f[1]))
	return Process{pid, parent, string(f[19])}, err == nil
}

// Processes returns the processes of this machine.
func Processes() []Process {
	names, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	var all []Process
	for _, n := range names {
		if pid, err := strconv.Atoi(filepath.Base(n)); err == nil {
			if p, ok := read(pid); ok {
				all = append(all, p)
			}
		}
	}
	return all
}

// Lives says whether it is still the same process, and alive.
func (p Process) Lives() bool {
	now, ok := read(p.Pid)
	return ok && now.Start == p.Start
}

// Signal sends it a signal, unless its number has been given to another.
func (p Process) Signal(s syscall.Signal) bool {
	return p.Lives() && syscall.Kill(p.Pid, s) == nil
}

// Env returns what it was started with; nothing for one that may not be read.
func (p Process) Env() map[string]string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid) + "/environ")
	if err != nil {
		return nil
	}
	env := map[string]string{}
	for _, v := range strings.Split(string(b), "\x00") {
		if k, v, ok := strings.Cut(v, "="); ok {
			env[k] = v
		}
	}
	return env
}

// Runs says whether it runs the program exe, and with which arguments.
func (p Process) Runs(exe string) (args []string, yes bool) {
	if now, err := os.Readlink("/proc/" + strconv.Itoa(p.Pid) + "/exe"); err != nil || now != exe {
		return nil, false
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid) + "/cmdline")
	if err != nil || len(b) == 0 {
		return nil, false
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")[1:], true
}

// Agents returns the living agents of the program exe, whoever is their parent.
func Agents(exe string) []Process {
	agents := map[int]bool{}
	all := slices.DeleteFunc(Processes(), func(p Process) bool {
		args, yes := p.Runs(exe)
		agents[p.Pid] = yes && len(args) > 0 && args[0] == "agent"
		return !agents[p.Pid]
	})
	// A step looks like its agent until it has become another program.
	return slices.DeleteFunc(all, func(p Process) bool { return agents[p.Parent] })
}

// Memory returns what a process and all that descend from it have of the
// machine's memory, in bytes: shared pages are shared out (PSS).
func Memory(pid int) (int64, error) {
	children := map[int][]int{}
	for _, p := range Processes() {
		children[p.Parent] = append(children[p.Parent], p.Pid)
	}
	own, err := pss(pid)
	if err != nil {
		return 0, err
	}
	var down func(int) int64
	down = func(pid int) (sum int64) {
		for _, c := range children[pid] {
			n, _ := pss(c) // one that has ended meanwhile has nothing
			sum += n + down(c)
		}
		return sum
	}
	return own + down(pid), nil
}

func pss(pid int) (int64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, nil
}
