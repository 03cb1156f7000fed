package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"fragua.dev/fragua/test/program"
)

// startAndIdle measures the start, and what an idle server has of the memory.
func startAndIdle(ctx context.Context, b *bench) error {
	var first, again, idle []float64
	quiet := 10 * time.Second
	for i := range max(3, b.count) {
		name := fmt.Sprintf("start-%d", i)
		for _, times := range []*[]float64{&first, &again} {
			s, err := b.serve(ctx, name)
			if err != nil {
				return err
			}
			*times = append(*times, s.Ready.Seconds())
			if times == &again && i < b.count {
				pause(ctx, quiet)
				var mb float64
				mb, err = memoryMB(s.Pid())
				idle = append(idle, mb)
			}
			if err := errors.Join(err, s.stop()); err != nil {
				return err
			}
		}
		if err := os.RemoveAll(filepath.Join(b.home, name)); err != nil {
			return err
		}
	}
	b.add(row{what: "start to /readyz, with no data", unit: "s", must: 1, aim: 0.3, values: first, note: "the first one finds the program in no cache but the build's"})
	b.add(row{what: "start to /readyz, again", unit: "s", must: 1, aim: 0.3, values: again})
	b.add(row{what: "idle memory", unit: "MB", must: 120, aim: 60, values: idle, note: fmt.Sprintf("server and all its children, PSS, %v after the start", quiet)})
	return nil
}

// memoryMB returns what a process and its children have, in millions of bytes.
func memoryMB(pid int) (float64, error) {
	n, err := program.Memory(pid)
	return float64(n) / 1e6, err
}
