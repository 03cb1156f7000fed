package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"fragua.dev/fragua/test/program"
)

const lines = 2_000_000

// output measures a step that says much against one that writes the same to a
// file.
func output(ctx context.Context, b *bench) error {
	s, err := b.serve(ctx, "output")
	if err != nil {
		return err
	}
	n := lines
	if b.quick {
		n /= 10
	}
	short := fmt.Sprintf("seq 1 %d", n)
	long := fmt.Sprintf("yes '2026-07-01T12:00:00Z level=info msg=%q' | head -n %d", "eighty bytes a line, as a build tool says them", n)
	for _, c := range []struct{ what, script string }{
		{fmt.Sprintf("a step of %d short lines, against a file", n), short},
		{fmt.Sprintf("a step of %d lines of 80 bytes, against a file", n), long},
	} {
		if err = b.compare(ctx, s, c.what, c.script, n); err != nil {
			break
		}
	}
	return errors.Join(err, s.stop())
}

func (b *bench) compare(ctx context.Context, s *server, what, script string, n int) error {
	var ratios, said, filed, peaks []float64
	for range max(3, b.count) {
		file, err := s.finish(ctx, 100*time.Millisecond, "sh", "-c", "{ "+script+"; } > out")
		if err != nil {
			return err
		}
		stop, peak := watchMemory(s.Pid())
		said1, err := s.finish(ctx, 100*time.Millisecond, "sh", "-c", script)
		stop()
		if err != nil {
			return err
		}
		peaks = append(peaks, float64(<-peak)/1e6)
		got, err := s.countLines(ctx, said1)
		if err != nil {
			return err
		}
		if got != n {
			return fmt.Errorf("the log has %d lines, want %d", got, n)
		}
		a, z := stepTime(said1), stepTime(file)
		said, filed, ratios = append(said, a), append(filed, z), append(ratios, a/z)
	}
	b.add(row{what: what, unit: "×", must: 3, aim: 1.3, values: ratios,
		note: fmt.Sprintf("%s s against %s s; the step's started_at to finished_at; the log was read back whole", number(quantile(said, 0.5)), number(quantile(filed, 0.5)))})
	b.add(row{what: "peak memory meanwhile", unit: "MB", values: peaks, note: "server and all its children, PSS, looked at every 20 ms"})
	return nil
}

// stepTime returns how long a job's first step took, in seconds.
func stepTime(j job) float64 { return j.Steps[0].Finished.Sub(*j.Steps[0].Started).Seconds() }

// countLines reads the whole log of a job's first step.
func (s *server) countLines(ctx context.Context, j job) (n int, err error) {
	res, err := s.open(ctx, "/logs/"+j.Steps[0].Exec)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	buf := make([]byte, 1<<20)
	for {
		k, err := res.Body.Read(buf)
		n += bytes.Count(buf[:k], []byte{'\n'})
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// watchMemory looks at the memory of a process and its children until stop is
// called; then peak yields the greatest sum, in bytes.
func watchMemory(pid int) (stop func(), peak <-chan int64) {
	quit, out := make(chan struct{}), make(chan int64, 1)
	go func() {
		t := time.NewTicker(20 * time.Millisecond)
		defer t.Stop()
		var greatest int64
		for {
			select {
			case <-t.C:
				if n, err := program.Memory(pid); err == nil { // it may be on its way out
					greatest = max(greatest, n)
				}
			case <-quit:
				out <- greatest
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(quit) }), out
}
