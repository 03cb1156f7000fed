package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/client"
	"fragua.dev/fragua/internal/pipelinefile"
)

// afterRun is how long jobs go on when a run with the platform in its process was killed:
// another run may be in its house, and take it over.
const afterRun = 10 * time.Second

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
			"events and store as the server's. With --server, or where a server has the data\n" +
			"folder, it runs there, and is followed in the same way. FILE is fragua.yaml or\n" +
			".fragua.yaml of this folder unless given; a folder stands for the file in it. Jobs\n" +
			"start from the files of its folder.",
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
	p, err := loadFile(cmd.Context(), file)
	if err != nil {
		return err
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
	c, hint, done, err := platform(cmd)
	if err != nil {
		return err
	}
	defer done()
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	out := newShown(ctx, cmd.OutOrStdout(), stop)
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
	r := &follower{c: c, id: ids("run"), name: p.Name, jobs: map[string]*followed{}, out: cmd.ErrOrStderr(), hint: hint, began: time.Now()}
	var told chan error
	if o.output == "json" {
		told = r.tell(ctx, out)
	} else if f, ok := cmd.OutOrStdout().(*os.File); ok && onTerminal(f) && os.Getenv("TERM") != "dumb" {
		plain, _ := cmd.Flags().GetBool("no-color")
		r.screen = newScreen(f, plain || os.Getenv("NO_COLOR") != "")
	} else {
		r.out, r.plain, r.calm = out, true, onTerminal(cmd.OutOrStdout())
	}
	if err := c.Call(cmd.Context(), "POST", "/pipelines/"+url.PathEscape(made.ID)+"/runs", map[string]any{"run_id": r.id, "env": env, "jobs": o.jobs}, nil); err != nil {
		return err
	}
	state, err := r.follow(ctx)
	broke := errEnd
	if told != nil {
		select {
		case broke = <-told:
		case <-time.After(eventsTime):
			broke = errors.New("they did not come in time")
		}
	}
	failed := out.failed()
	if !errors.Is(broke, errEnd) && failed == nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "not all events were shown:", broke)
	}
	if failed != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = fmt.Errorf("not all of it was shown: %w", failed)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return exitError{exitInterrupted, errTold}
	case err != nil:
		return err
	case state != "SUCCEEDED", !errors.Is(broke, errEnd):
		return exitError{exitFailed, errTold}
	}
	return nil
}

// loadFile reads a pipeline file; what is wrong with it is a fault of usage.
func loadFile(ctx context.Context, file string) (spec.Pipeline, error) {
	p, err := until(ctx, func() (spec.Pipeline, error) { return pipelinefile.Load(file) })
	if err != nil && ctx.Err() == nil {
		err = usage(err)
	}
	return p, err
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

// platform returns a client of the platform that runs the pipeline, a server or one in
// this process, and what to add to a command so that it looks there.
func platform(cmd *cobra.Command) (c *client.Client, hint string, done func(), err error) {
	server, _ := cmd.Flags().GetString("server")
	if server != "" {
		c, done, err = connect(cmd)
		return c, " --server " + quote(server), done, err
	}
	data, _ := cmd.Flags().GetString("data")
	wait := time.Duration(0)
	if data != "" {
		wait = grace
	} else if data, err = stateDir(); err != nil {
		return nil, "", nil, err
	}
	hint = " --data " + quotePath(data)
	token, _ := cmd.Flags().GetString("token")
	g := newGuest(Settings{Data: data, As: asRun, Outlive: afterRun, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))}, true)
	c, own, err := g.enter(cmd.Context(), token, wait, cmd.ErrOrStderr())
	if err != nil {
		return nil, "", nil, err
	}
	if own {
		tellUnfinished(cmd, c, hint)
	}
	return c, hint, g.leave, nil
}

// tellUnfinished says that jobs go on which an earlier run left: it was killed, and they were
// accepted. Nobody would understand what else runs here.
func tellUnfinished(cmd *cobra.Command, c *client.Client, hint string) {
	for _, state := range []string{"PENDING", "SCHEDULED", "RUNNING"} {
		var page struct {
			Items []struct{} `json:"items"`
		}
		if c.Call(cmd.Context(), "GET", "/jobs?limit=1&state="+state, nil, &page) == nil && len(page.Items) > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "fragua: jobs that an earlier run left unfinished go on here, too; see fragua job list%s\n", hint)
			return
		}
	}
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
	tellLeft(cmd.ErrOrStderr(), left)
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
		if j.Source == nil { // else it starts from what another job has kept
			j.Source = &src
		}
		p.Jobs[name] = j
	}
	return nil
}
