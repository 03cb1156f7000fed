package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/client"
)

var runColumns = []column{{"RUN", "run_id"}, {"PIPELINE", "name"}, {"VERSION", "pipeline_version"}, {"STATE", "state"}, {"ATTEMPT", "attempts"}, {"CREATED", "created_at"}, {"FINISHED", "finished_at"}}

var memberColumns = []column{{"NAME", "name"}, {"STATE", "state"}, {"JOB", "job_id"}, {"NEEDS", "needs"}}

var undoColumns = []column{{"UNDOES", "name"}, {"STATE", "state"}, {"JOB", "by_job_id"}, {"OF", "job_id"}}

var pipeColumns = []column{{"PIPELINE", "pipeline_id"}, {"NAME", "name"}, {"VERSION", "version"}, {"STATE", "state"}, {"CREATED", "created_at"}}

// emptyFolder is what surprises who knows fragua run.
const emptyFolder = "Each of its jobs begins in an empty folder unless it\nnames a source: the files beside the pipeline file are not taken along, as they are by\nfragua run."

func pipelineCommand() *cobra.Command {
	send := func(use, short, method, path string, update bool) *cobra.Command {
		var id string
		cmd := &cobra.Command{Use: use, Short: short, Args: exactly(strings.Count(use, " ")), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
			file, err := findFile(args[len(args)-1:])
			if err != nil {
				return usage(err)
			}
			spec, err := loadFile(cmd.Context(), file)
			if err != nil {
				return err
			}
			in := map[string]any{"spec": spec}
			target := path
			if update {
				id, err := pipelineNamed(cmd.Context(), c, args[0])
				if err != nil {
					return err
				}
				target = fmt.Sprintf(path, url.PathEscape(id))
			} else if id != "" {
				in["pipeline_id"] = id
			}
			var out any
			if err := c.Call(cmd.Context(), method, target, in, &out); err != nil {
				return err
			}
			return show(cmd, out, pipeColumns)
		})}
		outputFlag(cmd)
		if !update {
			cmd.Long = short + ". " + emptyFolder
			cmd.Flags().StringVar(&id, "id", "", "the pipeline's id; made by the server unless given")
		}
		return cmd
	}
	runs := &cobra.Command{Use: "runs PIPELINE", Short: "List runs of a pipeline", Args: exactly(1), RunE: call(byName(func(cmd *cobra.Command, args []string, c *client.Client) error {
		return page(cmd, c, "/pipelines/"+url.PathEscape(args[0])+"/runs", runColumns, nil)
	}))}
	pageFlags(runs, nil)
	get := &cobra.Command{Use: "get PIPELINE", Short: "Show a pipeline", Args: exactly(1), RunE: call(byName(fetch("GET", "/pipelines/%s", pipeColumns)))}
	outputFlag(get)
	var env []string
	start := &cobra.Command{Use: "run PIPELINE", Short: "Run a pipeline", Long: "Run a pipeline. " + emptyFolder, Args: exactly(1), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
		vars, err := variables(env)
		if err != nil {
			return usage(err)
		}
		id, err := pipelineNamed(cmd.Context(), c, args[0]) // once nothing is wrong here
		if err != nil {
			return err
		}
		var out any
		if err := c.Call(cmd.Context(), "POST", "/pipelines/"+url.PathEscape(id)+"/runs", map[string]any{"env": vars}, &out); err != nil {
			return err
		}
		return show(cmd, out, runColumns)
	})}
	outputFlag(start)
	start.Flags().StringArrayVar(&env, "env", nil, "NAME=VALUE, or NAME to pass this environment's on")
	return group("pipeline", "Pipelines and their runs",
		send("create FILE", "Create a pipeline from a file", "POST", "/pipelines", false),
		send("update PIPELINE FILE", "Make a new version of a pipeline", "PUT", "/pipelines/%s", true),
		list("List pipelines", "/pipelines", pipeColumns), get, start, runs,
		whole("status RUN", "Show a run and its jobs", "/runs/%s", runColumns, part{name: "jobs", of: memberColumns}, part{name: "compensations", of: undoColumns, what: "undo "}), cancel("RUN", "Cancel a run", "/runs/%s/cancel", runColumns),
		one("retry RUN", "Run again what failed of a run, and what depends on it", "POST", "/runs/%s/retry", runColumns))
}

// byName has a command's first argument be the id of the pipeline that it names.
func byName(fn func(cmd *cobra.Command, args []string, c *client.Client) error) func(*cobra.Command, []string, *client.Client) error {
	return func(cmd *cobra.Command, args []string, c *client.Client) error {
		id, err := pipelineNamed(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		return fn(cmd, append([]string{id}, args[1:]...), c)
	}
}

const maxNamed = 10_000 // pipelines that are looked through for a name

// pipelineNamed returns the id of the pipeline that people mean: by its id, or by its
// name, where no other has the same.
func pipelineNamed(ctx context.Context, c *client.Client, name string) (string, error) {
	var p struct {
		ID string `json:"pipeline_id"`
	}
	err := c.Call(ctx, "GET", "/pipelines/"+url.PathEscape(name), nil, &p)
	var problem *client.Problem
	if err == nil || !errors.As(err, &problem) || problem.Status != http.StatusNotFound {
		return p.ID, err
	}
	var found []string
	q := url.Values{"limit": {"1000"}}
	for range maxNamed / 1000 {
		var some struct {
			Items []struct {
				ID   string `json:"pipeline_id"`
				Name string `json:"name"`
			} `json:"items"`
			Next string `json:"next_cursor"`
		}
		if err := c.Call(ctx, "GET", "/pipelines?"+q.Encode(), nil, &some); err != nil {
			return "", err
		}
		for _, p := range some.Items {
			if p.Name == name {
				found = append(found, p.ID)
			}
		}
		if some.Next == "" {
			break
		}
		q.Set("cursor", some.Next)
	}
	switch len(found) {
	case 0:
		return "", err
	case 1:
		return found[0], nil
	}
	return "", usage(fmt.Errorf("%d pipelines have this name: say which by its id, such as %s", len(found), found[0]))
}

// variables reads NAME=VALUE, and NAME from this environment.
func variables(args []string) (map[string]string, error) {
	out := map[string]string{}
	for _, a := range args {
		name, value, given := strings.Cut(a, "=")
		if !given {
			var ok bool
			if value, ok = os.LookupEnv(name); !ok {
				return nil, fmt.Errorf("--env %s: not set here; give --env %s=VALUE", name, name)
			}
		}
		out[name] = value
	}
	var errs []error
	for _, f := range (spec.Pipeline{Name: "x", Env: out}).Validate() {
		if f.Path != "jobs" { // which are the pipeline's
			errs = append(errs, fmt.Errorf("--env %s: %s", printable(strings.TrimPrefix(strings.TrimPrefix(f.Path, "env"), ".")), f.Message))
		}
	}
	return out, errors.Join(errs...)
}
