package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	serverGC   = 300 // percent: memory for speed, within reason
	lookAtHeap = time.Second
	quietBytes = 4 << 20  // allocated between two looks: nobody waits for the program
	worthBytes = 32 << 20 // allocated since memory was given back: there is something to give
)

// giveBack returns memory to the machine whenever the program has become quiet after
// a start or a load, until ctx ends. Left to itself the collector would look after
// what they have left two minutes later.
func giveBack(ctx context.Context) {
	t := time.NewTicker(lookAtHeap)
	defer t.Stop()
	allocated := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	var given, last uint64
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		metrics.Read(allocated)
		now := allocated[0].Value.Uint64()
		if now-last < quietBytes && now-given > worthBytes {
			debug.FreeOSMemory()
			given = now
		}
		last = now
	}
}
