package main

import (
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/internal/client"
)

func logsCommand() *cobra.Command {
	var (
		step   string
		follow bool
		tail   int
	)
	cmd := &cobra.Command{Use: "logs JOB", Short: "Print a job's log", Args: exactly(1), Example: "  fragua job logs job_… --tail 100",
		RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
			var j jobView
			if err := c.Call(cmd.Context(), "GET", "/jobs/"+url.PathEscape(args[0]), nil, &j); err != nil {
				return err
			}
			for i, s := range j.Steps {
				if step != "" && s.Name != step {
					continue
				}
				for follow && s.Exec == "" && !ended(j.State) { // not begun yet
					select {
					case <-time.After(200 * time.Millisecond):
					case <-cmd.Context().Done():
						return cmd.Context().Err()
					}
					if err := c.Call(cmd.Context(), "GET", "/jobs/"+url.PathEscape(args[0]), nil, &j); err != nil {
						return err
					}
					s = j.Steps[i]
				}
				if s.Exec == "" {
					continue
				}
				q := url.Values{}
				if follow {
					q.Set("follow", "true")
				}
				if tail > 0 {
					q.Set("tail", fmt.Sprint(tail))
				}
				r, err := c.Open(cmd.Context(), "/logs/"+url.PathEscape(s.Exec)+"?"+q.Encode(), "")
				if err != nil {
					return err
				}
				_, err = io.Copy(cmd.OutOrStdout(), r)
				r.Close()
				if err != nil {
					return err
				}
			}
			return nil
		})}
	cmd.Flags().StringVar(&step, "step", "", "only this step")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the job ends")
	cmd.Flags().IntVar(&tail, "tail", 0, "only the last lines of each step")
	return cmd
}

func stream(cmd *cobra.Command, c *client.Client, path string, to io.Writer) error {
	r, err := c.Open(cmd.Context(), path, "")
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(to, r)
	return err
}
