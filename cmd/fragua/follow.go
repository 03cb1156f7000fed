package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/client"
)

const (
	lookEvery  = 100 * time.Millisecond
	cancelTime = 30 * time.Second // for what was started to end, after Ctrl-C
	eventsTime = 15 * time.Second // for the last events to come: longer than a worker has to end
)

// jobView and runView are what the command line reads of the API.
type (
	jobView struct {
		ID       string     `json:"job_id"`
		Name     string     `json:"name"`
		Undoes   string     `json:"undoes"` // the job whose work this one undoes
		State    string     `json:"state"`
		Attempts int        `json:"attempts"`
		Created  time.Time  `json:"created_at"`
		Started  *time.Time `json:"started_at"`
		Finished *time.Time `json:"finished_at"`
		Failure  *struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"failure"`
		Steps []stepView `json:"steps"`
	}
	stepView struct {
		ID       string     `json:"step_id"`
		Name     string     `json:"name"`
		State    string     `json:"state"`
		Exec     string     `json:"exec_id"`
		ExitCode *int       `json:"exit_code"`
		Message  string     `json:"message"`
		Started  *time.Time `json:"started_at"`
		Duration int64      `json:"duration_ms"`
	}
	runView struct {
		ID    string `json:"run_id"`
		State string `json:"state"`
		Jobs  []struct {
			ID    string   `json:"job_id"`
			Name  string   `json:"name"`
			State string   `json:"state"`
			Needs []string `json:"needs"`
		} `json:"jobs"`
	}
)

func ended(state string) bool {
	return state == "SUCCEEDED" || state == "FAILED" || state == "CANCELLED" || state == "TERMINATED"
}

// follower follows one run, and shows it.
type follower struct {
	c        *client.Client
	id, name string
	hint     string // flags that make a command look where the run is
	fleeting bool   // nothing of the run is kept
	note     string
	began    time.Time
	asked    time.Time // when the server was last asked why jobs wait
	out      io.Writer // for people
	plain    bool
	screen   *screen

	wg    sync.WaitGroup
	mu    sync.Mutex
	jobs  map[string]*followed
	order []string
}

// followed is a job of the run, with the ends of its logs.
type followed struct {
	view jobView
	logs map[string]*tail // by execution
	open int              // logs that are being read

	said    map[string]bool // states of attempts, and reasons to wait, that were told
	over    bool            // its end was told
	end     chan struct{}   // closed then
	last    chan struct{}   // closed after its last log that has been begun
	after   []*followed     // those that are told before it
	placed  bool            // after is known
	pending time.Time       // since when it has been seen waiting for a place
	waits   string          // why it does
}

func newFollowed() *followed {
	begun := make(chan struct{})
	close(begun) // nothing goes before its first log
	return &followed{logs: map[string]*tail{}, said: map[string]bool{}, end: make(chan struct{}), last: begun}
}

// tell prints the run's events, and returns a channel that is closed after the last.
func (r *follower) tell(ctx context.Context, out io.Writer) chan error {
	told := make(chan error, 1)
	connected := make(chan struct{})
	go func() {
		mine := map[string]bool{r.id: true}
		var over bool
		workers := map[ident.Worker]bool{} // that have not ended
		time.AfterFunc(300*time.Millisecond, func() { close(connected) })
		told <- r.c.Events(context.WithoutCancel(ctx), []string{"ci.job.>", "ci.step.>", "ci.run.>", "ci.assignment.>", "ci.worker.>", "ci.compensation.>", "ci.artifact.>"}, "", true,
			func(_ string, e event.Event, raw []byte) error {
				if d, err := event.RunStarted.Read(e); err == nil && string(d.Run) == r.id {
					for _, j := range d.Jobs { // also those that will never be asked for
						mine[string(j.Job)] = true
					}
				}
				if d, err := event.JobRequested.Read(e); err == nil && string(d.Run) == r.id {
					mine[string(d.Job)] = true
				}
				if !mine[e.Key] {
					return nil
				}
				if _, err := out.Write(append(raw, '\n')); err != nil {
					return err
				}
				if d, err := event.WorkerCreated.Read(e); err == nil {
					workers[d.Worker] = true
				}
				if d, err := event.WorkerTerminated.Read(e); err == nil {
					delete(workers, d.Worker)
				}
				if d, err := event.WorkerFailed.Read(e); err == nil {
					delete(workers, d.Worker)
				}
				if over = over || e.Subject == event.RunEnded.Subject; over && len(workers) == 0 {
					return errEnd
				}
				return nil
			})
	}()
	<-connected
	return told
}

var errEnd = errors.New("the run has ended")

// lost says of a run that cannot be followed to its end how to look at it.
func (r *follower) lost(err error) error {
	if r.fleeting {
		return err
	}
	return fmt.Errorf("%w\n  the run goes on there; look at it with\n  fragua pipeline status %s%s", err, r.id, r.hint)
}

// follow looks at the run until it has ended. When ctx ends it cancels the run, and
// waits for what was started to end.
func (r *follower) follow(ctx context.Context) (state string, err error) {
	look, forsake := context.WithCancel(context.WithoutCancel(ctx))
	stop := ctx.Done()
	var deadline <-chan time.Time
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	defer r.wg.Wait()
	defer forsake() // the logs, too, when the run cannot be followed any more
	for {
		state, err := r.look(look)
		if err != nil {
			return "", r.lost(err)
		}
		if ended(state) {
			r.wg.Wait()
			r.show()
			r.summary(state)
			return state, ctx.Err()
		}
		select {
		case <-t.C:
		case <-stop:
			stop, deadline = nil, time.After(cancelTime)
			r.interrupted()
			if err := r.c.Call(look, "POST", "/runs/"+r.id+"/cancel", map[string]string{"reason": "interrupted"}, nil); err != nil {
				return "", r.lost(err)
			}
		case <-deadline:
			return "", r.lost(errors.New("what was started did not end in time"))
		}
	}
}

// interrupted says that the run is being ended.
func (r *follower) interrupted() {
	const note = "interrupted; ending what was started"
	if r.screen == nil {
		fmt.Fprintln(os.Stderr, "\nfragua: "+note)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note = note
}

// look fetches how the run and its jobs stand, and follows the logs of new steps.
func (r *follower) look(ctx context.Context) (string, error) {
	var run runView
	if err := r.c.Call(ctx, "GET", "/runs/"+r.id, nil, &run); err != nil {
		return "", err
	}
	var all []jobView
	for cursor := ""; ; {
		var page struct {
			Items []jobView `json:"items"`
			Next  string    `json:"next_cursor"`
		}
		if err := r.c.Call(ctx, "GET", "/jobs?limit=500&run_id="+r.id+"&cursor="+url.QueryEscape(cursor), nil, &page); err != nil {
			return "", err
		}
		all = append(all, page.Items...)
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	place := map[string]int{} // each job after what it needs; what undoes them last
	for i, j := range run.Jobs {
		place[j.ID] = i + 1
	}
	slices.SortStableFunc(all, func(a, b jobView) int {
		x, y := place[a.ID], place[b.ID]
		if x == 0 || y == 0 {
			return y - x
		}
		return x - y
	})
	r.mu.Lock()
	for _, j := range all {
		f := r.jobs[j.ID]
		if f == nil {
			f = newFollowed()
			r.jobs[j.ID] = f
			r.order = append(r.order, j.ID)
		}
		f.view = j
		if j.State != "PENDING" {
			f.pending, f.waits = time.Time{}, ""
		}
	}
	r.placed()
	for _, id := range r.order {
		f := r.jobs[id]
		for _, s := range f.view.Steps {
			if s.Exec != "" && f.logs[s.Exec] == nil {
				r.begin(ctx, f, s)
			}
		}
	}
	r.mu.Unlock()
	if !ended(run.State) {
		r.askWhy(ctx, run, time.Now())
	}
	r.show()
	return run.State, nil
}

// begin follows the log of a step; r.mu is held.
func (r *follower) begin(ctx context.Context, f *followed, s stepView) {
	t, last, done, title := &tail{}, f.last, make(chan struct{}), f.view.Name+"/"+s.Name
	f.logs[s.Exec], f.last = t, done
	f.open++
	r.wg.Go(func() {
		defer close(done)
		r.await(ctx, f, last)
		r.read(ctx, title, s.Exec, t)
		r.mu.Lock()
		defer r.mu.Unlock()
		if f.open--; r.plain {
			r.lines()
		}
	})
}

// read follows a step's log to its end, over restarts of the server.
func (r *follower) read(ctx context.Context, title, exec string, t *tail) {
	in, out := io.Pipe()
	r.wg.Go(func() { out.CloseWithError(followLog(ctx, r.c, exec, url.Values{}, &counted{w: out})) })
	err := t.read(in, r.each(title))
	var p *client.Problem
	if err == nil || ctx.Err() != nil || errors.As(err, &p) && p.Status == http.StatusNotFound {
		return // one that was never written is no loss
	}
	if r.plain {
		r.mu.Lock()
		defer r.mu.Unlock()
		fmt.Fprintf(r.out, "%s: %v\n", title, err)
		return
	}
	t.keep([]byte(err.Error()))
}

// each returns what prints the lines of a log where there is no screen.
func (r *follower) each(title string) func(line []byte) {
	if !r.plain {
		return nil
	}
	return func(line []byte) {
		r.mu.Lock()
		defer r.mu.Unlock()
		fmt.Fprintf(r.out, "%s | %s\n", title, line)
	}
}

// show says what is new.
func (r *follower) show() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.screen != nil {
		_, lines := r.screen.size()
		r.screen.draw(r.fit(lines-1), false)
		return
	}
	if r.plain {
		r.lines()
	}
}
