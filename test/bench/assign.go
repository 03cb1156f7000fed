package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// metric finds `12.3 p95-µs` in a line of go test -bench.
var metric = regexp.MustCompile(`([0-9.e+]+) (p95-µs|p95-ms)\b`)

// scheduling runs a benchmark of the scheduling room, and returns the 95th
// percentiles that it tells, in ms, by the benchmark's full name.
func schedulingBench(ctx context.Context, pattern, time string) (map[string]float64, error) {
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", pattern, "-benchtime", time, "fragua.dev/fragua/scheduling").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("the benchmark of scheduling: %w: %.500s", err, out)
	}
	found := map[string]float64{}
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(line, " ")
		m := metric.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return nil, err
		}
		if m[2] == "p95-µs" {
			v /= 1000
		}
		found[strings.TrimSpace(name)] = v
	}
	if len(found) == 0 {
		return nil, errors.New("the benchmark of scheduling tells no p95")
	}
	return found, nil
}

// assignment measures how long a place is looked for when many wait.
func assignment(ctx context.Context, b *bench) error {
	var values []float64
	for range b.count {
		found, err := schedulingBench(ctx, "^BenchmarkAssignment$", "500x")
		if err != nil {
			return err
		}
		worst := 0.0
		for _, v := range found {
			worst = max(worst, v)
		}
		values = append(values, worst)
	}
	b.add(row{what: "assignment with 10,000 queued and 1,000 nodes, p95", unit: "ms", must: 50, aim: 5, values: values,
		note: "in process, from the end of a worker to the plan carried out; of 20, 500 and 10,000 shapes of job the slowest"})
	return nil
}
