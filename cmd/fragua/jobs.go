package main

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/internal/client"
)

var jobColumns = []column{{"JOB", "job_id"}, {"NAME", "name"}, {"STATE", "state"}, {"ATTEMPT", "attempts"}, {"NODE", "node_id"}, {"CREATED", "created_at"}, {"FINISHED", "finished_at"}}

func jobCommand() *cobra.Command {
	var (
		id, name      string
		env           []string
		retries, prio int
		timeout       time.Duration
	)
	create := &cobra.Command{
		Use: "create -- COMMAND…", Short: "Request a job", Example: "  fragua job create -- make test",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(errors.New("want a command after --; see fragua job create --help"))
			}
			return nil
		},
		RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
			vars, err := variables(env)
			if err != nil {
				return usage(err)
			}
			in := map[string]any{"spec": map[string]any{"command": args, "env": vars, "retries": retries, "timeout_ms": timeout.Milliseconds()}, "priority": prio}
			if id != "" {
				in["job_id"] = id
			}
			if name != "" {
				in["tags"] = map[string]string{"name": name}
			}
			var out any
			if err := c.Call(cmd.Context(), "POST", "/jobs", in, &out); err != nil {
				return err
			}
			return show(cmd, out, jobColumns)
		}),
	}
	f := create.Flags()
	f.StringVar(&id, "id", "", "the job's id; made by the server unless given")
	f.StringVar(&name, "name", "", "kept as the tag name")
	f.StringArrayVar(&env, "env", nil, "NAME=VALUE, or NAME to pass this environment's on")
	f.IntVar(&retries, "retries", 0, "further attempts")
	f.IntVar(&prio, "priority", 0, "higher is placed first")
	f.DurationVar(&timeout, "timeout", time.Hour, "of one attempt")
	outputFlag(create)
	explain := &cobra.Command{Use: "explain JOB", Short: "Say why a job waits, node by node", Args: exactly(1), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
		var out any
		if err := c.Call(cmd.Context(), "GET", "/jobs/"+url.PathEscape(args[0])+"/explain", nil, &out); err != nil {
			return err
		}
		if format, _ := cmd.Flags().GetString("output"); format != "table" {
			return show(cmd, out, nil)
		}
		fmt.Fprintln(cmd.OutOrStdout(), cell(out, "text"))
		m, _ := out.(map[string]any)
		reasons, _ := m["reasons"].([]any)
		return table(cmd.OutOrStdout(), map[string]any{"items": reasons}, []column{{"NODE", "node_id"}, {"REASON", "reason"}})
	})}
	outputFlag(explain)
	return group("job", "Jobs", create, list("list", "List jobs, newest first", "/jobs", jobColumns, "state", "pipeline_id", "run_id"),
		one("get JOB", "Show a job", "GET", "/jobs/%s", jobColumns), one("cancel JOB", "Cancel a job", "POST", "/jobs/%s/cancel", jobColumns),
		one("retry JOB", "Try an ended job again, as a new one", "POST", "/jobs/%s/retry", jobColumns), explain, logsCommand())
}
