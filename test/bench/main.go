// Command bench measures the program as its users meet it, and prints one table:
// what must be, what is aimed at, what is. The page docs/benchmarks.md is made
// from the same figures.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"fragua.dev/fragua/test/program"
)

// options are what the command line chooses.
type options struct {
	quick    bool
	only     string
	jobs     int
	count    int
	finished int
	page     string
}

func main() {
	var o options
	flag.BoolVar(&o.quick, "quick", false, "small numbers, to see that it works; no page is written unless -page is given")
	flag.StringVar(&o.only, "only", "", "blocks to measure, separated by commas: "+strings.Join(names(), ", "))
	flag.IntVar(&o.jobs, "jobs", 0, "trivial jobs in one measurement of throughput (2000; quick: 300)")
	flag.IntVar(&o.count, "count", 0, "runs of each measurement (3; quick: 1)")
	flag.IntVar(&o.finished, "finished", 0, "finished jobs in the full store (1000000; quick: 20000)")
	flag.StringVar(&o.page, "page", "", "Markdown page to write (docs/benchmarks.md when everything is measured)")
	flag.Parse()
	set := func(n *int, quick, full int) {
		if *n == 0 {
			*n = full
			if o.quick {
				*n = quick
			}
		}
	}
	set(&o.jobs, 300, 2000)
	set(&o.count, 1, 3)
	set(&o.finished, 20_000, 1_000_000)
	if o.page == "" && !o.quick && o.only == "" {
		o.page = "docs/benchmarks.md"
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A block measures some rows.
type block struct {
	name    string
	measure func(context.Context, *bench) error
}

var blocks = []block{
	{"start", startAndIdle},
	{"latency", latency},
	{"throughput", throughput},
	{"post", postRate},
	{"assignment", assignment},
	{"output", output},
	{"finished", finishedJobs},
}

func names() (out []string) {
	for _, b := range blocks {
		out = append(out, b.name)
	}
	return out
}

// bench is one run of everything.
type bench struct {
	options
	home string // data folders lie in it
	exe  string
	log  io.Writer
	rows []row
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	chosen := strings.FieldsFunc(o.only, func(r rune) bool { return r == ',' })
	for _, name := range chosen {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("-only: there is no block %s; there are %s", name, strings.Join(names(), ", "))
		}
	}
	m := thisMachine(o.count)
	home, err := os.MkdirTemp("", "fragua-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	b := &bench{options: o, home: home}
	log, err := os.Create(filepath.Join(home, "server.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	b.log = log
	if b.exe, err = program.Build(ctx, home); err != nil {
		return err
	}
	for _, block := range blocks {
		if len(chosen) > 0 && !slices.Contains(chosen, block.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s…\n", block.name)
		if err := block.measure(ctx, b); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			fmt.Fprintf(os.Stderr, "%s: %v\n", block.name, err)
			b.rows = append(b.rows, row{what: block.name, why: strings.ReplaceAll(err.Error(), "\n", " "), load: loadNow()})
		}
	}
	fmt.Fprintf(out, "%s, %d CPUs, Linux %s, load before %s, %d runs\n\n%s", m.date, m.cpus, m.kernel, m.load, m.runs, plain(b.rows))
	if o.page == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(o.page), 0o755); err != nil {
		return err
	}
	return os.WriteFile(o.page, []byte(markdown(b.rows, m)), 0o644)
}

// add adds a row, with the load of now.
func (b *bench) add(r row) {
	r.load = loadNow()
	b.rows = append(b.rows, r)
}
