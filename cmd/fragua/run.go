package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/client"
	"fragua.dev/fragua/internal/pipelinefile"
)

const (
	lookEvery  = 100 * time.Millisecond
	cancelTime = 30 * time.Second // for what was started to end, after Ctrl-C
	eventsTime = 5 * time.Second  // for the last events to come
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
			ID string `json:"job_id"`
		} `json:"jobs"`
	}
)

func ended(state string) bool {
	return state == "SUCCEEDED" || state == "FAILED" || state == "CANCELLED" || state == "TERMINATED"
}

// runOptions are the flags of fragua run.
type runOptions struct {
	env, jobs []string
	output    string
}

func runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use: "run [FILE]", Short: "Run a pipeline file here and now",
		Long: "Runs a pipeline file on the platform that is part of this program: the same engine,\n" +
			"events and store as the server's. With --server it runs there, and is followed in\n" +
			"the same way. FILE is fragua.yaml or .fragua.yaml of this folder unless given; a\n" +
			"folder stands for the file in it. Jobs start from the files of its folder.",
		Example: "  fragua run\n  fragua run examples/go\n  fragua run --job test --env HOME",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage(errors.New("want at most one FILE; see fragua run --help"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.output, _ = cmd.Flags().GetString("output")
			return runFile(cmd, args, o)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.env, "env", nil, "NAME=VALUE for every job, or NAME to pass this environment's on")
	f.StringArrayVar(&o.jobs, "job", nil, "only this job, and what it needs")
	choice(cmd, "output", "o", "", "json prints one CloudEvent a line, and nothing else on stdout", "json")
	return cmd
}

func runFile(cmd *cobra.Command, args []string, o runOptions) error {
	file, err := findFile(args)
	if err != nil {
		return usage(err)
	}
	p, err := pipelinefile.Load(file)
	if err != nil {
		return usage(err)
	}
	env, err := variables(o.env)
	if err != nil {
		return usage(err)
	}
	for _, j := range o.jobs {
		if _, ok := p.Jobs[j]; !ok {
			return usage(fmt.Errorf("--job %s: the pipeline has no such job", j))
		}
	}
	c, hint, fleeting, done, err := platform(cmd)
	if err != nil {
		return err
	}
	defer done()
	ctx := cmd.Context()
	if err := send(cmd, c, filepath.Dir(file), &p); err != nil {
		return err
	}
	var made struct {
		ID string `json:"pipeline_id"`
	}
	ids := ident.NewSource(time.Now)
	in := map[string]any{"pipeline_id": ids("pl"), "spec": p}
	if err := c.Call(ctx, "POST", "/pipelines", in, &made); err != nil {
		return err
	}
	r := &follower{c: c, id: ids("run"), name: p.Name, jobs: map[string]*followed{}, out: cmd.ErrOrStderr(), hint: hint, fleeting: fleeting, began: time.Now()}
	var told chan error
	if o.output == "json" {
		told = r.tell(ctx, cmd.OutOrStdout())
	} else if f, ok := cmd.OutOrStdout().(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		plain, _ := cmd.Flags().GetBool("no-color")
		r.screen = newScreen(f, plain || os.Getenv("NO_COLOR") != "")
	} else {
		r.out = cmd.OutOrStdout()
		r.plain = true
	}
	if err := c.Call(ctx, "POST", "/pipelines/"+url.PathEscape(made.ID)+"/runs", map[string]any{"run_id": r.id, "env": env, "jobs": o.jobs}, nil); err != nil {
		return err
	}
	state, err := r.follow(ctx)
	if told != nil {
		select {
		case <-told:
		case <-time.After(eventsTime):
		}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return exitError{exitInterrupted, errTold}
	case err != nil:
		return err
	case state != "SUCCEEDED":
		return exitError{exitFailed, errTold}
	}
	return nil
}

// findFile returns the pipeline file that the arguments name.
func findFile(args []string) (string, error) {
	dir := "."
	if len(args) == 1 {
		info, err := os.Stat(args[0])
		if err != nil {
			return "", err
		}
		if !info.IsDir() {
			return args[0], nil
		}
		dir = args[0]
	}
	return pipelinefile.Find(dir)
}

// platform returns a client of the platform that runs the pipeline, what to add to
// a command so that it looks there, and whether nothing stays there: a server, or one
// in this process.
func platform(cmd *cobra.Command) (c *client.Client, hint string, fleeting bool, done func(), err error) {
	server, _ := cmd.Flags().GetString("server")
	data, _ := cmd.Flags().GetString("data")
	if server != "" {
		c, done, err = connect(cmd)
		return c, " --server " + quote(server), false, done, err
	}
	state := data
	if state == "" {
		if state, err = stateDir(); err != nil {
			return nil, "", false, nil, err
		}
	}
	hint = " --data " + quotePath(state)
	if url, err := running(state); err == nil && url != "" && data != "" {
		return client.New(url, findToken(data)), hint, false, func() {}, nil
	}
	s := Settings{Data: state, Listen: "127.0.0.1:0", Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))}
	h, err := boot(cmd.Context(), s)
	remove := func() {}
	if errors.Is(err, errLocked) { // another run is at work: this one gets a folder of its own
		if s.Data, err = os.MkdirTemp(state, "run-*"); err != nil {
			return nil, "", false, nil, err
		}
		fleeting = true
		remove = func() { os.RemoveAll(s.Data) }
		h, err = boot(cmd.Context(), s)
	}
	if err != nil {
		remove()
		return nil, "", false, nil, err
	}
	return client.New(h.URL(), h.Token()), hint, fleeting, func() {
		ctx, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		h.Close(ctx) // what it kept is kept
		remove()
	}, nil
}

// quotePath quotes a path, and writes ~ for the home folder: it is short, and fit to
// be shown to others.
func quotePath(path string) string {
	if home, err := os.UserHomeDir(); err == nil && filepath.IsAbs(home) {
		if rest, ok := strings.CutPrefix(path, home+"/"); ok && rest != "" {
			return "~/" + quote(rest)
		}
	}
	return quote(path)
}

// quote writes a value so that a shell takes it for one word.
func quote(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-:@%+=,", r))
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// send keeps the files of a folder as an artifact, and has every job start from it.
func send(cmd *cobra.Command, c *client.Client, dir string, p *spec.Pipeline) error {
	names, left, err := files(dir)
	if err != nil {
		return usage(fmt.Errorf("the files of %s cannot be taken along: %w", dir, err))
	}
	for _, folder := range left {
		fmt.Fprintf(cmd.ErrOrStderr(), "left out: %s, the data folder of a Fragua server\n", printable(folder))
	}
	f, version, err := snapshot(dir, names, maxSnapshot)
	if err != nil {
		return usage(fmt.Errorf("the files of %s cannot be taken along: %w", dir, err))
	}
	defer os.Remove(f.Name())
	defer f.Close()
	src := spec.Source{Repository: "source", Name: p.Name, Version: version}
	if _, err := upload(cmd, c, src.Repository+"/"+src.Name+"/"+src.Version, f); err != nil {
		return err
	}
	for name, j := range p.Jobs {
		j.Source = &src
		p.Jobs[name] = j
	}
	return nil
}

// follower follows one run, and shows it.
type follower struct {
	c        *client.Client
	id, name string
	hint     string // flags that make a command look where the run is
	fleeting bool   // nothing of the run is kept
	note     string
	began    time.Time
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
	said string           // the state that was shown last
}

// tell prints the run's events, and returns a channel that is closed after the last.
func (r *follower) tell(ctx context.Context, out io.Writer) chan error {
	told := make(chan error, 1)
	connected := make(chan struct{})
	go func() {
		mine := map[string]bool{r.id: true}
		time.AfterFunc(300*time.Millisecond, func() { close(connected) })
		told <- r.c.Events(context.WithoutCancel(ctx), []string{"ci.job.>", "ci.step.>", "ci.run.>", "ci.assignment.>", "ci.worker.>", "ci.compensation.>", "ci.artifact.>"}, "", true,
			func(_ string, e event.Event, raw []byte) error {
				if d, err := event.JobRequested.Read(e); err == nil && string(d.Run) == r.id {
					mine[string(d.Job)] = true
				}
				if !mine[e.Key] {
					return nil
				}
				if _, err := out.Write(append(raw, '\n')); err != nil {
					return err
				}
				if e.Subject == event.RunEnded.Subject {
					return errEnd
				}
				return nil
			})
	}()
	<-connected
	return told
}

var errEnd = errors.New("the run has ended")

// follow looks at the run until it has ended. When ctx ends it cancels the run, and
// waits for what was started to end.
func (r *follower) follow(ctx context.Context) (state string, err error) {
	look := context.WithoutCancel(ctx)
	stop := ctx.Done()
	var deadline <-chan time.Time
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	defer r.wg.Wait()
	for {
		state, err := r.look(look)
		if err != nil {
			return "", err
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
				return "", err
			}
		case <-deadline:
			return "", errors.New("what was started did not end in time")
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
			f = &followed{logs: map[string]*tail{}}
			r.jobs[j.ID] = f
			r.order = append(r.order, j.ID)
		}
		f.view = j
		for _, s := range j.Steps {
			if s.Exec != "" && f.logs[s.Exec] == nil {
				t := &tail{}
				f.logs[s.Exec] = t
				f.open++
				r.wg.Go(func() {
					r.read(ctx, j.Name+"/"+s.Name, s.Exec, t)
					r.mu.Lock()
					defer r.mu.Unlock()
					f.open--
				})
			}
		}
	}
	r.mu.Unlock()
	r.show()
	return run.State, nil
}

// read follows a step's log to its end.
func (r *follower) read(ctx context.Context, title, exec string, t *tail) {
	body, err := r.c.Open(ctx, "/logs/"+url.PathEscape(exec)+"?follow=true", "")
	if err != nil {
		return // the summary says where the log is
	}
	defer body.Close()
	var each func(line []byte)
	if r.plain {
		each = func(line []byte) {
			r.mu.Lock()
			defer r.mu.Unlock()
			fmt.Fprintf(r.out, "%s | %s\n", title, line)
		}
	}
	t.read(body, each)
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
	if !r.plain {
		return
	}
	for _, id := range r.order {
		f := r.jobs[id]
		if ended(f.view.State) && f.open > 0 {
			continue // its end is told after its last word
		}
		if now := fmt.Sprint(f.view.State, f.view.Attempts); now != f.said && f.view.State != "SCHEDULED" && (f.view.State != "PENDING" || f.view.Attempts > 1) {
			f.said = now
			fmt.Fprintf(r.out, "%s: %s%s\n", f.view.Name, f.view.State, why(f.view))
		}
	}
}
