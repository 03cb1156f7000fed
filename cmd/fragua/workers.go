package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/internal/client"
)

var workColumns = []column{{"WORKER", "worker_id"}, {"STATE", "state"}, {"PROVIDER", "provider_id"}, {"JOB", "job_id"}, {"NODE", "node_id"}, {"CREATED", "created_at"}}

var nodeColumns = []column{{"NODE", "node_id"}, {"PROVIDER", "provider_id"}, {"ZONE", "zone"}, {"POOL", "pool"}, {"STATE", "state"}, {"CPU FREE", "free.cpu_m"}, {"OF", "total.cpu_m"}, {"MB FREE", "free.memory_mb"}, {"OF", "total.memory_mb"}, {"JOBS", "assignments"}}

func workerCommand() *cobra.Command {
	logs := &cobra.Command{Use: "logs WORKER", Short: "Print what a worker itself said", Args: exactly(1), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
		return stream(cmd.Context(), c, "/workers/"+url.PathEscape(args[0])+"/logs", calmed(cmd.OutOrStdout()))
	})}
	var all bool
	filter := "state:CREATING,RUNNING,TERMINATING,TERMINATED,FAILED"
	living := &cobra.Command{Use: "list", Short: "List workers", Args: cobra.NoArgs, RunE: call(func(cmd *cobra.Command, _ []string, c *client.Client) error {
		path := "/workers"
		if all {
			path += "?all=true"
		}
		if err := page(cmd, c, path, workColumns, []string{filter}); err != nil {
			return err
		}
		format, _ := cmd.Flags().GetString("output")
		if !all && format == "table" && !cmd.Flags().Changed("state") {
			fmt.Fprintln(cmd.ErrOrStderr(), "workers that have ended are not shown: --all shows them too")
		}
		return nil
	})}
	pageFlags(living, []string{filter})
	living.Flags().BoolVar(&all, "all", false, "those that have ended too")
	return group("worker", "Workers", living, one("get WORKER", "Show a worker", "GET", "/workers/%s", workColumns),
		logs, one("terminate WORKER", "Terminate a worker", "DELETE", "/workers/%s", workColumns))
}

func nodeCommand() *cobra.Command {
	return group("node", "Nodes: what there is to run jobs on", list("List nodes", "/nodes", nodeColumns), one("get NODE", "Show a node", "GET", "/nodes/%s", nodeColumns))
}
