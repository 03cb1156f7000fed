package scheduling

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/sqldb"
)

// BenchmarkAssignment measures one assignment with 10,000 attempts queued on
// 1,000 full nodes: a worker ends, a place is free, a plan fills it, another job
// comes. It reports the 95th percentile of the time from the end to the plan
// carried out.
func BenchmarkAssignment(b *testing.B) {
	for _, shapes := range []int{20, 500, 10_000} {
		b.Run(fmt.Sprintf("shapes=%d", shapes), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 2))
			s := world(1000, 18_000, shapes, r)
			running := []Placement{}
			carry := func() {
				out := Plan(s, 100_000)
				s.Settle(out)
				for _, p := range out.Placed {
					s.Take(p.Waiting, p.Node.ID)
					running = append(running, p)
				}
			}
			carry()
			next := 1_000_000
			more := func() {
				k := next % shapes
				s.Add(&Waiting{Attempt: Attempt{"t", ident.Job(fmt.Sprintf("job_%06d", next)), 1}, Order: Order{r.IntN(3), int64(next), int64(next)},
					Ask: Ask{Resources: spec.Quota{CPUm: 2000 + int64(k%97)*10, MemoryMB: 4096 + int64(k)}}})
				next++
			}
			for s.Queued() < 10_000 {
				more()
			}
			carry()
			times := make([]int64, 0, b.N)
			placed := 0
			for b.Loop() {
				i := r.IntN(len(running))
				gone := running[i]
				running[i] = running[len(running)-1]
				running = running[:len(running)-1]
				before := len(running)
				start := time.Now()
				s.Give(gone.Node.ID, gone.Ask.Resources)
				carry()
				times = append(times, time.Since(start).Nanoseconds())
				placed += len(running) - before
				for s.Queued() < 10_000 {
					more()
					start := time.Now()
					carry()
					times = append(times, time.Since(start).Nanoseconds())
				}
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)*50/100])/1e3, "p50-µs")
			b.ReportMetric(float64(times[len(times)*95/100])/1e3, "p95-µs")
			b.ReportMetric(float64(times[len(times)-1])/1e3, "max-µs")
			b.ReportMetric(float64(placed)/float64(b.N), "placed/op")
		})
	}
}

// BenchmarkAssign measures from JobRequested to AssignmentCreated on the disk, 64
// at a time on 1,000 nodes, with each worker ending at once; also in a database
// that remembers a million attempts that have ended. reopen-ms is how long such a
// room takes to open again.
func BenchmarkAssign(b *testing.B) {
	for _, ended := range []int{0, 1_000_000} {
		b.Run(fmt.Sprintf("ended=%d", ended), func(b *testing.B) { assign(b, ended) })
	}
}

func assign(b *testing.B, ended int) {
	nodes := make([]NodeConfig, 1000)
	for i := range nodes {
		nodes[i] = node(fmt.Sprintf("node-%04d", i), 16_000)
	}
	h := newHouse(b, nodes...)
	h.Close()
	h.cfg.Now = time.Now
	h.cfg.IDs = ident.NewSource(time.Now)
	h.open()
	if err := h.DB().Write(b.Context(), func(tx *sqldb.Tx) error { return manyEnded(tx, ended) }); err != nil {
		b.Fatal(err)
	}
	h.Close()
	start := time.Now()
	h.open()
	reopened := time.Since(start)

	type task struct{ asked, end event.Event }
	work := make(chan task)
	var mu sync.Mutex
	var times []time.Duration
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			var mine []time.Duration
			for k := range work {
				start := time.Now()
				if err := h.hears[k.asked.Subject](context.Background(), k.asked); err != nil {
					b.Error(err)
				}
				mine = append(mine, time.Since(start))
				if err := h.hears[k.end.Subject](context.Background(), k.end); err != nil {
					b.Error(err)
				}
			}
			mu.Lock()
			times = append(times, mine...)
			mu.Unlock()
		})
	}
	r := rand.New(rand.NewPCG(1, 1))
	n := 0
	for b.Loop() {
		job := fmt.Sprintf("job_%08d", n)
		n++
		end := event.Assignment{Job: ident.Job(job), Attempt: 1, Assignment: assignmentID(Attempt{"acme", ident.Job(job), 1})}
		work <- task{h.requested(job, 1, quota(250+int64(r.IntN(4))*250, 256)), h.workerEnded(end)}
	}
	close(work)
	wg.Wait()
	b.StopTimer()
	slices.Sort(times)
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "jobs/s")
	b.ReportMetric(float64(times[len(times)*95/100].Microseconds())/1e3, "p95-ms")
	b.ReportMetric(float64(reopened.Milliseconds()), "reopen-ms")
}

// manyEnded writes n attempts that have ended.
func manyEnded(tx *sqldb.Tx, n int) error {
	done, err := tx.Exec(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
		INSERT INTO assignments (`+placeColumns+`)
		SELECT 'acme', 'old_' || i, 1, 'asg_old_' || i, 'CREATED', 0, i, i, 250, 256, 0, 0, '{}',
			'node-0001', 'off_1', 'process', 'its worker has ended', 0, 1, 0, i, i, $2 + i FROM n LIMIT $1`, n, time.Now().UnixMilli())
	if err == nil && done != int64(n) {
		err = fmt.Errorf("%d rows written, want %d", done, n)
	}
	return err
}
