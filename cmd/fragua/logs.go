package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/internal/client"
)

const nextStep = 200 * time.Millisecond // between looks at whether it has begun

// logOptions are the flags of fragua job logs.
type logOptions struct {
	step, exec    string
	follow        bool
	tail, attempt int
}

func logsCommand() *cobra.Command {
	var o logOptions
	cmd := &cobra.Command{Use: "logs JOB", Short: "Print a job's log", Example: "  fragua job logs job_… --tail 100\n  fragua job logs job_… --attempt 1",
		Args: func(cmd *cobra.Command, args []string) error {
			if o.exec != "" && len(args) == 0 {
				return nil
			}
			return exactly(1)(cmd, args)
		},
		RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
			if o.tail < 0 && cmd.Flags().Changed("tail") {
				return usage(errors.New("--tail: want a number from 0 on"))
			}
			if o.exec != "" {
				return o.print(cmd, c, o.exec)
			}
			return o.job(cmd, c, args[0])
		})}
	cmd.Flags().StringVar(&o.step, "step", "", "only this step")
	cmd.Flags().IntVar(&o.attempt, "attempt", 0, "of this attempt; the newest unless given")
	cmd.Flags().StringVar(&o.exec, "exec", "", "of this execution, in place of a job's")
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on until the job ends")
	cmd.Flags().IntVar(&o.tail, "tail", -1, "only so many last lines of each step")
	cmd.Flags().Lookup("tail").DefValue = "all"
	return cmd
}

// job prints what the steps of a job said, one after the other.
func (o logOptions) job(cmd *cobra.Command, c *client.Client, id string) error {
	ctx := cmd.Context()
	var j jobView
	look := func() error { return c.Call(ctx, "GET", "/jobs/"+url.PathEscape(id), nil, &j) }
	if err := look(); err != nil {
		return err
	}
	var names []string
	for _, s := range j.Steps {
		names = append(names, s.Name)
	}
	if o.step != "" && !slices.Contains(names, o.step) {
		return usage(fmt.Errorf("--step: the job has no such step; it has %s", printable(strings.Join(names, ", "))))
	}
	if o.attempt < 0 || o.attempt > j.Attempts {
		return usage(fmt.Errorf("--attempt: want 1 to %d", j.Attempts))
	}
	if o.attempt > 0 && o.attempt < j.Attempts {
		return o.earlier(cmd, c, j)
	}
	said := false
	for i := range j.Steps {
		if o.step != "" && j.Steps[i].Name != o.step {
			continue
		}
		for o.follow && j.Steps[i].Exec == "" && !ended(j.State) {
			select {
			case <-time.After(nextStep):
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := look(); err != nil {
				return err
			}
		}
		if j.Steps[i].Exec == "" {
			continue
		}
		said = true
		if err := o.print(cmd, c, j.Steps[i].Exec); err != nil {
			return err
		}
	}
	if !said {
		why := "there is no log yet"
		if ended(j.State) {
			why = "there is no log"
		}
		if j.Failure != nil {
			why += ": " + j.Failure.Message
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", j.State, printable(why))
	}
	return nil
}

// earlier prints what the steps said in an attempt before the newest, each try.
func (o logOptions) earlier(cmd *cobra.Command, c *client.Client, j jobView) error {
	tried, err := executions(cmd.Context(), c, j.ID)
	if err != nil {
		return err
	}
	said := false
	for _, x := range tried {
		at := slices.IndexFunc(j.Steps, func(s stepView) bool { return s.ID == x.Step })
		if x.Attempt != o.attempt || at < 0 || o.step != "" && j.Steps[at].Name != o.step {
			continue
		}
		said = true
		if err := o.print(cmd, c, x.Exec); err != nil {
			return err
		}
	}
	if !said {
		return errors.New("nothing of this attempt ran to an end: it left no log")
	}
	return nil
}

// execView is what the command line reads of an execution.
type execView struct {
	Exec    string    `json:"exec_id"`
	Step    string    `json:"step_id"`
	Attempt int       `json:"attempt"`
	Started time.Time `json:"started_at"`
	Message string    `json:"message"` // of one that failed
}

// executions returns those of a job, in the order in which they began.
func executions(ctx context.Context, c *client.Client, job string) ([]execView, error) {
	var all []execView
	q := url.Values{"job_id": {job}, "limit": {"1000"}}
	for {
		var page struct {
			Items []execView `json:"items"`
			Next  string     `json:"next_cursor"`
		}
		if err := c.Call(ctx, "GET", "/executions?"+q.Encode(), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Next == "" {
			break
		}
		q.Set("cursor", page.Next)
	}
	slices.SortStableFunc(all, func(a, b execView) int {
		return cmp.Or(cmp.Compare(a.Attempt, b.Attempt), a.Started.Compare(b.Started))
	})
	return all, nil
}

// print prints the log of an execution.
func (o logOptions) print(cmd *cobra.Command, c *client.Client, exec string) error {
	q := url.Values{}
	if o.tail >= 0 {
		q.Set("tail", fmt.Sprint(o.tail))
	}
	to := &counted{w: calmed(cmd.OutOrStdout())}
	if !o.follow {
		return stream(cmd.Context(), c, logPath(exec, q), to)
	}
	return followLog(cmd.Context(), c, exec, q, to)
}

func logPath(exec string, q url.Values) string {
	return "/logs/" + url.PathEscape(exec) + "?" + q.Encode()
}

const (
	logTries = 30 // after which a log that broke off is given up
	logAgain = time.Second
)

// followLog writes the log of an execution to its end. When the server is restarted
// meanwhile, and the step goes on, the log goes on where it was.
func followLog(ctx context.Context, c *client.Client, exec string, q url.Values, to *counted) error {
	q.Set("follow", "true")
	opened := false
	for fails := 0; ; fails++ {
		before := to.bytes
		r, err := c.Open(ctx, logPath(exec, q), "")
		if err == nil {
			opened = true
			_, err = io.Copy(to, r)
			r.Close()
		}
		if err == nil || !opened || ctx.Err() != nil || to.failed != nil {
			return err
		}
		if to.bytes > before {
			fails = 0
		}
		if q.Has("tail") || fails == logTries {
			return fmt.Errorf("the log broke off: %w", err)
		}
		select {
		case <-time.After(logAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
		q.Set("from", fmt.Sprint(to.lines+1))
		to.skip = to.part
	}
}

// counted writes on, and knows how far a log has been printed.
type counted struct {
	w      io.Writer
	bytes  int64
	lines  int64
	part   int64 // bytes of a line that has not ended
	skip   int64 // bytes that come again
	failed error
}

func (c *counted) Write(p []byte) (int, error) {
	n := len(p)
	again := min(c.skip, int64(n))
	c.skip, p = c.skip-again, p[again:]
	if c.failed != nil {
		return 0, c.failed
	}
	if _, c.failed = c.w.Write(p); c.failed != nil {
		return 0, c.failed
	}
	c.bytes += int64(len(p))
	if i := bytes.LastIndexByte(p, '\n'); i >= 0 {
		c.lines += int64(bytes.Count(p, []byte{'\n'}))
		c.part = int64(len(p) - i - 1)
	} else {
		c.part += int64(len(p))
	}
	return n, nil
}

// stream writes the body of an answer.
func stream(ctx context.Context, c *client.Client, path string, to io.Writer) error {
	r, err := c.Open(ctx, path, "")
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(to, r)
	return err
}
