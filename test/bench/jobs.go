package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const clients = 16

// The names of the measurements that are made twice: on an empty and on a full
// store.
const (
	wordsShare = "trivial jobs a second, as a share of the raw machine's"
	wordsP50   = "submit to the first instruction, p50"
	wordsP99   = "submit to the first instruction, p99"
	wordsPost  = "POST /jobs at 200 a second, p95"
)

// a figure is what one measurement says; note is how.
type figures struct {
	share, rate, raw []float64
	p50, p99, date   []float64
	post             []float64
}

// throughput measures trivial jobs end to end.
func throughput(ctx context.Context, b *bench) error {
	f, err := b.onServer(ctx, "throughput", b.measureThroughput)
	if err != nil {
		return err
	}
	b.add(row{what: wordsShare, must: 0.25, aim: 0.6, more: true, values: f.share,
		note: fmt.Sprintf("%d jobs by %d clients, until all have ended, against fork, exec and captured output of `true`, before and after", b.jobs, clients)})
	b.add(row{what: "trivial jobs a second", unit: "/s", values: f.rate})
	b.add(row{what: "the raw machine: `true` a second", unit: "/s", values: f.raw, note: "the better of 2 and 8 at a time"})
	return nil
}

// onServer runs a measurement on a server of its own.
func (b *bench) onServer(ctx context.Context, name string, measure func(context.Context, *server, *figures) error) (*figures, error) {
	s, err := b.serve(ctx, name)
	if err != nil {
		return nil, err
	}
	f := &figures{}
	for range b.count {
		if err = measure(ctx, s, f); err != nil {
			break
		}
	}
	return f, errors.Join(err, s.stop())
}

func (b *bench) measureThroughput(ctx context.Context, s *server, f *figures) error {
	if _, err := s.finish(ctx, 0, "true"); err != nil { // the first job finds nothing warm
		return err
	}
	before, err := rawSpeeds(ctx, 1000)
	if err != nil {
		return err
	}
	var (
		left  atomic.Int64
		wg    sync.WaitGroup
		fault atomic.Pointer[error]
	)
	left.Store(int64(b.jobs))
	start := time.Now()
	for range clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := insist(ctx, s); err != nil {
					fault.Store(&err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := fault.Load(); err != nil {
		return *err
	}
	if err := s.drain(ctx); err != nil {
		return err
	}
	jobs, err := s.latest(ctx, b.jobs)
	if err != nil {
		return err
	}
	var end time.Time
	for _, j := range jobs {
		if j.State != "SUCCEEDED" || j.Finished == nil {
			return fmt.Errorf("job %s ended as %s", j.ID, j.State)
		}
		if j.Finished.After(end) {
			end = *j.Finished
		}
	}
	if len(jobs) != b.jobs {
		return fmt.Errorf("%d jobs are listed, want %d", len(jobs), b.jobs)
	}
	after, err := rawSpeeds(ctx, 1000)
	if err != nil {
		return err
	}
	rate := float64(b.jobs) / end.Sub(start).Seconds()
	f.rate = append(f.rate, rate)
	f.raw = append(f.raw, best(before, after))
	f.share = append(f.share, rate/best(before, after))
	return nil
}

// insist posts a trivial job; a server that asks for patience gets it.
func insist(ctx context.Context, s *server) error {
	for {
		status, err := s.Call(ctx, s.client, http.MethodPost, "/jobs", trivial, nil)
		if status != http.StatusTooManyRequests {
			return err
		}
		pause(ctx, 20*time.Millisecond)
	}
}

var trivial = map[string]any{"spec": map[string]any{"command": []string{"true"}}}

// latency measures from the submission of a job to its first instruction, on a
// machine that does nothing else.
func latency(ctx context.Context, b *bench) error {
	f, err := b.onServer(ctx, "latency", b.measureLatency)
	if err != nil {
		return err
	}
	n := b.idleJobs()
	b.add(row{what: wordsP50, unit: "ms", must: 30, aim: 10, values: f.p50, note: fmt.Sprintf("%d jobs, one after the other; the step's started_at less the moment before POST", n)})
	b.add(row{what: wordsP99, unit: "ms", must: 100, aim: 30, values: f.p99})
	b.add(row{what: "the same by the step's own clock, p50", unit: "ms", values: f.date, note: "`date` as the step says when it runs: its own start is in it"})
	return nil
}

func (b *bench) idleJobs() int {
	if b.quick {
		return 40
	}
	return 200
}

func (b *bench) measureLatency(ctx context.Context, s *server, f *figures) error {
	const patience = 80 * time.Millisecond
	if _, err := s.finish(ctx, patience, "true"); err != nil {
		return err
	}
	pause(ctx, time.Second)
	var times, own []float64
	for i := range b.idleJobs() {
		command := []string{"true"}
		if i%4 == 3 {
			command = []string{"date", "+%s%N"}
		}
		before := time.Now()
		j, err := s.finish(ctx, patience, command...)
		if err != nil {
			return err
		}
		times = append(times, ms(j.Steps[0].Started.Sub(before)))
		if i%4 == 3 {
			said, err := s.logOf(ctx, j)
			if err != nil {
				return err
			}
			ns, err := strconv.ParseInt(strings.TrimSpace(said), 10, 64)
			if err != nil {
				return fmt.Errorf("what date said: %w", err)
			}
			own = append(own, ms(time.Unix(0, ns).Sub(before)))
		}
		pause(ctx, 30*time.Millisecond)
	}
	f.p50 = append(f.p50, quantile(times, 0.5))
	f.p99 = append(f.p99, quantile(times, 0.99))
	f.date = append(f.date, quantile(own, 0.5))
	return nil
}

// logOf returns the log of a job's first step, which must be short.
func (s *server) logOf(ctx context.Context, j job) (string, error) {
	res, err := s.open(ctx, "/logs/"+j.Steps[0].Exec)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return string(b), err
}

// open calls GET path, for who reads the answer himself.
func (s *server) open(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.Token)
	res, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, fmt.Errorf("GET %s: %s", path, res.Status)
	}
	return res, nil
}

// postRate measures how long an acceptance takes when 200 a second are asked for,
// whatever became of those before: a late answer does not delay the next question.
func postRate(ctx context.Context, b *bench) error {
	f, err := b.onServer(ctx, "post", b.measurePost)
	if err != nil {
		return err
	}
	b.add(row{what: wordsPost, unit: "ms", must: 20, aim: 5, values: f.post, note: fmt.Sprintf("open loop for %v, from the moment it was due; trivial jobs, which run meanwhile", b.postTime())})
	return nil
}

func (b *bench) postTime() time.Duration {
	if b.quick {
		return 3 * time.Second
	}
	return 10 * time.Second
}

func (b *bench) measurePost(ctx context.Context, s *server, f *figures) error {
	const every = time.Second / 200
	n := int(b.postTime() / every)
	times := make([]float64, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	if _, err := s.finish(ctx, 0, "true"); err != nil {
		return err
	}
	start := time.Now()
	for i := range n {
		due := start.Add(time.Duration(i) * every)
		pause(ctx, time.Until(due))
		wg.Go(func() {
			_, errs[i] = s.Call(ctx, s.client, http.MethodPost, "/jobs", trivial, nil)
			times[i] = ms(time.Since(due))
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("at 200 a second: %.300s", err.Error())
	}
	f.post = append(f.post, quantile(times, 0.95))
	return s.drain(ctx)
}
