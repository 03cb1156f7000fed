package crash

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"fragua.dev/fragua/test/program"
)

const (
	startTime = 60 * time.Second // for the server to be ready
	quietTime = 4 * time.Minute  // for all jobs to end when nothing is done to them any more
	fromStart = "0"              // the place before all events
	shown     = 8                // faulty jobs whose history is told
)

// A campaign is one server's hard life.
type campaign struct {
	t      *testing.T
	seed   uint64
	exe    string
	dir    string // the server's
	marks  string // where steps write down that they run
	log    *os.File
	client *http.Client
	check  *checker
	long   bool // may keep an agent stopped for longer than its lease

	server  atomic.Pointer[program.Server] // nil while it is down
	last    *program.Server                // the last one, up or not
	numbers atomic.Int64
	calls   sync.WaitGroup // that are made in the background
	frozen  sync.WaitGroup // agents that are stopped
	placeMu sync.Mutex
	place   string // in the event stream
	epoch   int    // counts deletions of the bus's store
	countMu sync.Mutex
	counts  map[string]int
}

// newCampaign makes a campaign whose server has its data in dir, or in a folder of
// the campaign's own when dir is empty. What it leaves is kept if the test fails.
func newCampaign(t *testing.T, seed uint64, exe, dir string) *campaign {
	t.Helper()
	home, err := os.MkdirTemp("", "fragua-crash-")
	if err == nil {
		home, err = filepath.EvalSymlinks(home)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := &campaign{
		t: t, seed: seed, exe: exe, dir: cmp.Or(dir, filepath.Join(home, "data")), marks: filepath.Join(home, "marks"),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}},
		check:  newChecker(), place: fromStart, counts: map[string]int{},
	}
	for _, d := range []string{c.dir, c.marks} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if c.log, err = os.Create(filepath.Join(home, "server.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.clean()
		c.log.Close()
		if t.Failed() {
			t.Logf("seed %d: the server's log and data are kept in %s", seed, home)
			return
		}
		os.RemoveAll(home)
	})
	return c
}

// clean ends whatever the campaign started.
func (c *campaign) clean() {
	if c.last != nil {
		c.last.Kill()
	}
	for deadline := time.Now().Add(recovery); time.Now().Before(deadline); {
		left := append(program.Agents(c.exe), c.ours()...)
		if len(left) == 0 {
			return
		}
		for _, p := range left {
			p.Signal(syscall.SIGKILL)
		}
	}
	c.t.Errorf("seed %d: processes of the campaign cannot be ended", c.seed)
}

// count counts what happened, for people.
func (c *campaign) count(what string) {
	c.countMu.Lock()
	defer c.countMu.Unlock()
	c.counts[what]++
}

// up starts the server, and returns when it is ready.
func (c *campaign) up(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	s, err := program.Launch(c.exe, c.dir, c.log)
	if err != nil {
		return err
	}
	c.last = s
	if err := s.Await(ctx, c.dir); err != nil {
		return err
	}
	c.check.Up(time.Now())
	c.server.Store(s)
	return nil
}

// down ends the server by kill -9.
func (c *campaign) down() {
	c.server.Store(nil)
	c.check.Up(time.Time{})
	c.last.Kill()
}

// run keeps the server under load and does n of the faults to it, drawn by weight;
// then it waits until all is quiet, and tells what was not as promised.
func (c *campaign) run(ctx context.Context, n int, faults []trouble) {
	began := time.Now()
	if err := c.up(ctx); err != nil {
		c.t.Fatalf("seed %d: %v", c.seed, err)
	}
	var work, watch sync.WaitGroup
	loading, stopLoading := context.WithCancel(ctx)
	defer stopLoading()
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	for i := range loaders {
		work.Go(func() { c.load(loading, ctx, rand.New(rand.NewPCG(c.seed, uint64(i)+1))) })
	}
	watch.Go(func() { c.watchJobs(watching) })
	watch.Go(func() { c.watchProcs(watching) })
	watch.Go(func() { c.listen(watching) })

	r := rand.New(rand.NewPCG(c.seed, 0))
	for i := range n {
		wait(ctx, time.Duration(100+r.IntN(1200))*time.Millisecond)
		f := draw(r, faults)
		c.count(f.name)
		fmt.Fprintf(c.log, "# %s fault %d: %s\n", time.Now().Format(time.RFC3339Nano), i+1, f.name)
		if err := f.do(ctx, c, r); err != nil {
			c.t.Errorf("seed %d: fault %d, %s: %v", c.seed, i+1, f.name, err)
			break
		}
		if i%50 == 49 {
			c.t.Logf("%d faults in %v, %d jobs accepted, %d live", i+1, time.Since(began).Round(time.Second), len(c.check.Jobs()), len(c.check.Live()))
		}
		select {
		case <-c.last.Exited():
			c.t.Errorf("seed %d: after fault %d, %s, the server ended by itself", c.seed, i+1, f.name)
			if err := c.up(ctx); err != nil {
				c.t.Fatalf("seed %d: %v", c.seed, err)
			}
		default:
		}
	}
	stopLoading()
	work.Wait()
	c.frozen.Wait()
	c.calls.Wait()
	hit := time.Since(began)
	poll(ctx, quietTime, func() bool { return len(c.check.Live()) == 0 })
	nodes, left := c.settle(ctx)
	stopWatching()
	watch.Wait()
	c.lookAtAll(ctx)
	c.tell(ctx, c.verdict(nodes, left))
	c.t.Logf("seed %d: %d faults in %v, quiet after %v more; jobs: %d, %v; %v", c.seed, n, hit.Round(time.Second),
		(time.Since(began) - hit).Round(time.Second), len(c.check.Jobs()), c.check.Ended(), c.counts)
}

// settle waits until nothing is left, all capacity is free and every event was
// heard, for as long as that may take, and returns what is so.
func (c *campaign) settle(ctx context.Context) (nodes []capacity, left []life) {
	poll(ctx, recovery, func() bool {
		var page struct {
			Items []capacity `json:"items"`
		}
		if _, err := c.look(ctx, "/nodes", &page); err != nil {
			return false
		}
		nodes = page.Items
		_, left = c.alive()
		full := !slices.ContainsFunc(nodes, func(n capacity) bool { return n.Free != n.Total || n.Taken != 0 })
		return full && len(left) == 0 && len(c.check.Unheard()) == 0
	})
	return nodes, left
}

// lookAtAll looks at every job once more: what has ended stays as it ended.
func (c *campaign) lookAtAll(ctx context.Context) {
	for _, id := range c.check.Jobs() {
		if !c.lookAt(ctx, id) {
			c.t.Errorf("seed %d: job %s cannot be read", c.seed, id)
		}
	}
}

func (c *campaign) verdict(nodes []capacity, left []life) []fault {
	if err := c.readMarks(); err != nil {
		c.t.Error(err)
	}
	return c.check.Verdict(nodes, left)
}

// tell tells the faults, with the history of the first jobs that have some.
func (c *campaign) tell(ctx context.Context, wrong []fault) {
	told := map[string]bool{}
	for i, f := range wrong {
		if i == 200 {
			c.t.Errorf("seed %d: and %d faults more", c.seed, len(wrong)-i)
			break
		}
		c.t.Errorf("seed %d: %s: %s", c.seed, f.Job, f.Words)
		if f.Job == "" || told[f.Job] || len(told) == shown {
			continue
		}
		told[f.Job] = true
		var body json.RawMessage
		if _, err := c.look(ctx, "/jobs/"+f.Job, &body); err != nil {
			body = json.RawMessage(err.Error())
		}
		c.t.Logf("%s  %s", c.check.History(f.Job), body)
	}
}

// poll asks until the answer is yes, for at most limit.
func poll(ctx context.Context, limit time.Duration, yes func() bool) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for ctx.Err() == nil {
		if yes() {
			return
		}
		wait(ctx, lookAtProcs)
	}
}
