package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// The collector lets the heap grow by this many percent of what lives before it
	// works again: memory for speed, as long as that is little.
	mostGC     = 300
	leastGC    = 100
	slackBytes = 192 << 20 // up to which it grows so

	lookAtHeap = time.Second
	quietBytes = 4 << 20  // allocated between two looks: nobody waits for the program
	worthBytes = 32 << 20 // allocated since memory was given back: there is something to give
)

// keepSmall steers the collector until ctx ends, and returns memory to the machine
// whenever the program has become quiet after a start or a load. Left to itself the
// collector would look after what they have left two minutes later.
func keepSmall(ctx context.Context) {
	percent := mostGC
	debug.SetGCPercent(percent)
	t := time.NewTicker(lookAtHeap)
	defer t.Stop()
	heap := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	var given, last uint64
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		metrics.Read(heap)
		now, live := heap[0].Value.Uint64(), heap[1].Value.Uint64()
		if want := gcPercent(live); want != percent {
			percent = want
			debug.SetGCPercent(percent)
		}
		if now-last < quietBytes && now-given > worthBytes {
			debug.FreeOSMemory()
			given = now
		}
		last = now
	}
}

// gcPercent returns by how much a heap of which so many bytes live may grow, in steps.
func gcPercent(live uint64) int {
	const step = 50
	return max(leastGC, min(mostGC, int(slackBytes*100/max(live, 1)/step*step)))
}
