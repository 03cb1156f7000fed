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
		Failure  *failure   `json:"failure"`
		Steps    []stepView `json:"steps"`
	}
	failure struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	stepView struct {
		ID       string     `json:"step_id"`
		Name     string     `json:"name"`
		State    string     `json:"state"`
		Exec     string     `json:"exec_id"`
		Try      int        `json:"try"` // of this attempt, from 1
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
	note     string
	began    time.Time
	asked    time.Time // when the server was last asked why jobs wait
	out      io.Writer // for people
	plain    bool      // line by line, there is no screen
	calm     bool      // yet people look at it: a terminal that cannot be drawn on
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
	story
	pending time.Time // since when it has been seen waiting for a place
	waits   string    // why it does
}

func newFollowed() *followed {
	return &followed{logs: map[string]*tail{}, story: newStory()}
}

// tell prints the run's events, and returns a channel that is closed after the last.
func (r *follower) tell(ctx context.Context, out io.Writer) chan error {
	told := make(chan error, 1)
	connected := make(chan struct{})
	go func() {
		of := newChronicle(r.id)
		time.AfterFunc(300*time.Millisecond, func() { close(connected) })
		told <- r.c.Events(context.WithoutCancel(ctx), []string{"ci.job.>", "ci.step.>", "ci.run.>", "ci.assignment.>", "ci.worker.>", "ci.compensation.>", "ci.artifact.>"}, "", true,
			func(_ string, e event.Event, raw []byte) error {
				if !of.hear(e) {
					return nil
				}
				if _, err := out.Write(append(raw, '\n')); err != nil {
					return err
				}
				if of.whole() {
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
			r.show(look)
			r.summary(state)
			return state, ctx.Err()
		}
		select {
		case <-t.C:
		case <-stop:
			stop, deadline = nil, time.After(cancelTime)
			r.interrupted()
			err := r.c.Call(look, "POST", "/runs/"+r.id+"/cancel", map[string]string{"reason": "interrupted"}, nil)
			var p *client.Problem
			if err != nil && !(errors.As(err, &p) && p.Status == http.StatusConflict) { // it has just ended, or undoes its work
				return "", r.lost(err)
			}
		case <-deadline:
			return "", r.lost(errors.New("what was started did not end in time"))
		}
	}
}

// interrupted says that the run is being ended.
func (r *follower) interrupted() {
	const note = "interrupted; ending what was started (once more leaves at once)"
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
	if err := r.heard(ctx, all); err != nil {
		return "", err
	}
	if !ended(run.State) {
		r.askWhy(ctx, run, time.Now())
	}
	r.show(ctx)
	return run.State, nil
}

// heard takes note of how the jobs stand, and follows what has begun.
func (r *follower) heard(ctx context.Context, all []jobView) error {
	missed := map[string][]execView{}
	for _, j := range all {
		if !r.plain || !r.missing(j) {
			continue
		}
		var err error
		if missed[j.ID], err = executions(ctx, r.c, j.ID); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
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
	for _, id := range r.order {
		f := r.jobs[id]
		if r.plain {
			r.news(ctx, f, missed[id])
			continue
		}
		for _, s := range f.view.Steps {
			if s.Exec != "" && f.logs[s.Exec] == nil {
				r.wg.Go(r.log(ctx, f, s.Name, s.Exec))
			}
		}
	}
	return nil
}

// log returns what follows the log of a step; r.mu is held.
func (r *follower) log(ctx context.Context, f *followed, step, exec string) func() {
	t, title := &tail{}, printable(f.view.Name+"/"+step)
	f.logs[exec] = t
	return func() { r.read(ctx, title, exec, t) }
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
		to := r.out
		if r.calm {
			to = &calm{w: to, again: title + " | "}
		}
		fmt.Fprintf(to, "%s | %s\n", title, line)
	}
}

// show says what has changed.
func (r *follower) show(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.screen != nil {
		_, lines := r.screen.size()
		r.screen.draw(r.fit(lines-1), false)
		return
	}
	if r.plain {
		for _, id := range r.order {
			r.sayWaits(ctx, r.jobs[id])
		}
	}
}
