package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

// raw measures what the machine itself can do: programs a second that are
// started, and whose output is caught, width at a time.
func raw(ctx context.Context, n, width int) (float64, error) {
	var (
		left  atomic.Int64
		wg    sync.WaitGroup
		fault atomic.Pointer[error]
	)
	left.Store(int64(n))
	start := time.Now()
	for range width {
		wg.Go(func() {
			for left.Add(-1) >= 0 && ctx.Err() == nil {
				var out, errs bytes.Buffer
				cmd := exec.Command("true")
				cmd.Stdout, cmd.Stderr = &out, &errs
				if err := cmd.Run(); err != nil {
					fault.Store(&err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := fault.Load(); err != nil {
		return 0, fmt.Errorf("the raw machine: %w", *err)
	}
	return float64(n) / time.Since(start).Seconds(), ctx.Err()
}

// speeds are the raw machine's, 2 and 8 at a time.
type speeds struct{ two, eight float64 }

func rawSpeeds(ctx context.Context, n int) (s speeds, err error) {
	if s.two, err = raw(ctx, n, 2); err == nil {
		s.eight, err = raw(ctx, n, 8)
	}
	return s, err
}

// best returns the greater mean of two measurements, before and after.
func best(before, after speeds) float64 {
	return max((before.two+after.two)/2, (before.eight+after.eight)/2)
}
