package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// A row is one line of the table.
type row struct {
	what   string
	unit   string
	must   float64 // 0: there is none
	aim    float64
	more   bool      // is better
	values []float64 // one a run
	load   float64   // the machine's, when it was measured
	note   string
	why    string // it was not measured
}

// middle returns the median run.
func (r row) middle() float64 {
	v := slices.Sorted(slices.Values(r.values))
	return v[len(v)/2]
}

func (r row) measured() string {
	if len(r.values) == 0 {
		return "not measured: " + r.why
	}
	s := number(r.middle()) + " " + r.unit
	if n := len(r.values); n > 1 {
		s += fmt.Sprintf(" (%s–%s)", number(slices.Min(r.values)), number(slices.Max(r.values)))
	}
	return strings.TrimSpace(s)
}

func (r row) limit(x float64) string {
	if x == 0 {
		return ""
	}
	return strings.TrimSpace(number(x) + " " + r.unit)
}

// verdict says how the median run stands to must and aim.
func (r row) verdict() string {
	better := func(limit float64) bool {
		if r.more {
			return r.middle() >= limit
		}
		return r.middle() <= limit
	}
	switch {
	case len(r.values) == 0 || r.must == 0:
		return ""
	case better(r.aim):
		return "aim"
	case better(r.must):
		return "must"
	}
	return "MISSED"
}

// number writes x with three digits that count.
func number(x float64) string {
	switch {
	case x >= 1000:
		return fmt.Sprintf("%.0f", x)
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	case x >= 1:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.3g", x)
}

func (r row) cells() []string {
	return []string{r.what, r.limit(r.must), r.limit(r.aim), r.measured(), r.verdict(), fmt.Sprintf("%.2f", r.load), r.note}
}

var heads = []string{"what", "must", "aim", "measured", "reached", "load", "how"}

// plain writes the table for a terminal.
func plain(rows []row) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(heads, "\t"))
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r.cells(), "\t"))
	}
	w.Flush() // into memory
	return b.String()
}

// markdown writes the page of the table.
func markdown(rows []row, m machine) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Benchmarks

Made by %s: run it on your machine, and this page is yours.

%s. %d CPUs (%s), Linux %s, %s, %s. Load average before: %s. Runs: %d, of which
the median is shown, with the least and the greatest in brackets. The load beside
each row is the one-minute average when it was measured: the benchmark's own work
and whatever else the machine did.

“Must” is what a release keeps; “aim” is where it wants to be. The machine's own
speed is measured in the same run, before and after, so that shares can be
compared. They are not the same on every machine: a kernel that starts processes
faster than its neighbour, on a processor that is no faster, makes the share smaller.

`, "`make bench`", m.date, m.cpus, m.model, m.kernel, m.memory, runtime.Version(), m.load, m.runs)
	line := func(cells []string) {
		for i := range cells {
			cells[i] = strings.ReplaceAll(cells[i], "|", "\\|")
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	line(slices.Clone(heads))
	line(slices.Repeat([]string{"---"}, len(heads)))
	for _, r := range rows {
		line(r.cells())
	}
	return b.String()
}

// machine is where it was measured.
type machine struct {
	date, model, kernel, memory, load string
	cpus, runs                        int
}

func thisMachine(runs int) machine {
	m := machine{date: time.Now().Format("2 January 2006, 15:04"), cpus: runtime.NumCPU(), runs: runs, model: "unknown", kernel: "unknown"}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.kernel = strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.model = strings.TrimSpace(value)
				break
			}
		}
	}
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil {
		m.memory = fmt.Sprintf("%d GB", (info.Totalram*uint64(info.Unit)+1<<29)>>30)
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.load = strings.Join(strings.Fields(string(b))[:3], " ")
	}
	return m
}

// loadNow returns the one-minute load average.
func loadNow() (load float64) {
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		fmt.Sscan(string(b), &load)
	}
	return load
}
