package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/client"
)

// states are those of jobs and runs.
const states = "PENDING,SCHEDULED,RUNNING,SUCCEEDED,FAILED,CANCELLED,TERMINATED"

var jobColumns = []column{{"JOB", "job_id"}, {"NAME", "name|tags.name"}, {"STATE", "state"}, {"ATTEMPT", "attempts"}, {"NODE", "node_id"}, {"CREATED", "created_at"}, {"FINISHED", "finished_at"}, {"RUN", "run_id"}}

var stepColumns = []column{{"STEP", "name"}, {"STATE", "state"}, {"TRY", "try"}, {"EXIT", "exit_code"}, {"MS", "duration_ms"}, {"EXECUTION", "exec_id"}}

// jobOptions are the flags of fragua job create.
type jobOptions struct {
	id, name, image      string
	zone, pool, executor string
	env, tags, secrets   []string
	retries, priority    int
	cpu, memory          int64
	timeout              time.Duration
}

// order is what the flags and the command ask for.
func (o jobOptions) order(command []string) (map[string]any, error) {
	env, err := variables(o.env)
	if err != nil {
		return nil, usage(err)
	}
	s := spec.Job{
		Image: o.image, Command: command, Env: env, SecretRefs: o.secrets, Retries: o.retries, TimeoutMS: o.timeout.Milliseconds(),
		Resources: spec.Quota{CPUm: o.cpu, MemoryMB: o.memory},
	}
	if o.timeout < time.Millisecond {
		return nil, usage(errors.New("--timeout: want at least 1ms"))
	}
	if a := (spec.Affinity{ByExecutorType: o.executor, ByZone: o.zone, ByPool: o.pool}); a != (spec.Affinity{}) {
		s.Affinity = &a
	}
	tags := map[string]string{}
	for _, t := range o.tags {
		name, value, ok := strings.Cut(t, "=")
		if !ok {
			return nil, usage(errors.New("--tag: want NAME=VALUE"))
		}
		tags[name] = value
	}
	if o.name != "" {
		tags["name"] = o.name
	}
	in := map[string]any{"spec": s, "priority": o.priority, "tags": tags}
	if o.id != "" {
		in["job_id"] = o.id
	}
	return in, nil
}

func createJobCommand() *cobra.Command {
	var o jobOptions
	cmd := &cobra.Command{
		Use: "create -- COMMAND…", Short: "Request a job", Example: "  fragua job create -- make test\n  fragua job create --cpu 2000 --memory 1024 --secret NPM_TOKEN -- npm publish",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(errors.New("want a command after --; see fragua job create --help"))
			}
			return nil
		},
		RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
			in, err := o.order(args)
			if err != nil {
				return err
			}
			var out any
			if err := c.Call(cmd.Context(), "POST", "/jobs", in, &out); err != nil {
				return err
			}
			return show(cmd, out, jobColumns)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&o.id, "id", "", "the job's id; made by the server unless given")
	f.StringVar(&o.name, "name", "", "kept as the tag name")
	f.StringArrayVar(&o.tags, "tag", nil, "NAME=VALUE, kept with the job")
	f.StringVar(&o.image, "image", "", "container image; the process provider ignores it")
	f.StringArrayVar(&o.env, "env", nil, "NAME=VALUE, or NAME to pass this environment's on")
	f.StringArrayVar(&o.secrets, "secret", nil, "NAME of a secret that the job sees as a variable")
	f.Int64Var(&o.cpu, "cpu", 0, "thousandths of a CPU core; 50 unless given")
	f.Int64Var(&o.memory, "memory", 0, "MiB of memory; 128 unless given")
	f.IntVar(&o.retries, "retries", 0, "further attempts")
	f.IntVar(&o.priority, "priority", 0, "higher is placed first")
	f.DurationVar(&o.timeout, "timeout", time.Hour, "of one attempt")
	f.StringVar(&o.zone, "zone", "", "only on nodes of this zone")
	f.StringVar(&o.pool, "pool", "", "only on nodes of this pool")
	f.StringVar(&o.executor, "executor", "", "only on workers of this provider")
	outputFlag(cmd)
	return cmd
}

func jobCommand() *cobra.Command {
	create := createJobCommand()
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
		if len(reasons) == 0 {
			return nil
		}
		return table(cmd.OutOrStdout(), map[string]any{"items": reasons}, []column{{"NODE", "node_id"}, {"REASON", "reason"}})
	})}
	outputFlag(explain)
	return group("job", "Jobs", create, list("List jobs, newest first", "/jobs", jobColumns, "state:"+states, "pipeline_id", "run_id"),
		whole("get JOB", "Show a job, its steps, and why it failed", "/jobs/%s", jobColumns, part{name: "steps", of: stepColumns}), cancel("JOB", "Cancel a job", "/jobs/%s/cancel", jobColumns),
		one("retry JOB", "Try an ended job again, as a new one", "POST", "/jobs/%s/retry", jobColumns), explain, logsCommand())
}
