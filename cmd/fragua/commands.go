package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/client"
	"fragua.dev/fragua/internal/pipelinefile"
)

var (
	jobColumns  = []column{{"JOB", "job_id"}, {"NAME", "name"}, {"STATE", "state"}, {"ATTEMPT", "attempts"}, {"NODE", "node_id"}, {"CREATED", "created_at"}, {"FINISHED", "finished_at"}}
	runColumns  = []column{{"RUN", "run_id"}, {"PIPELINE", "name"}, {"VERSION", "pipeline_version"}, {"STATE", "state"}, {"ATTEMPT", "attempts"}, {"CREATED", "created_at"}, {"FINISHED", "finished_at"}}
	pipeColumns = []column{{"PIPELINE", "pipeline_id"}, {"NAME", "name"}, {"VERSION", "version"}, {"STATE", "state"}, {"CREATED", "created_at"}}
	artColumns  = []column{{"REPOSITORY", "repository"}, {"NAME", "name"}, {"VERSION", "version"}, {"BYTES", "size_bytes"}, {"STATUS", "status"}, {"ENVIRONMENTS", "environments"}, {"CREATED", "created_at"}}
	workColumns = []column{{"WORKER", "worker_id"}, {"STATE", "state"}, {"PROVIDER", "provider_id"}, {"JOB", "job_id"}, {"NODE", "node_id"}, {"CREATED", "created_at"}}
	nodeColumns = []column{{"NODE", "node_id"}, {"PROVIDER", "provider_id"}, {"ZONE", "zone"}, {"POOL", "pool"}, {"STATE", "state"}, {"CPU FREE", "free.cpu_m"}, {"OF", "total.cpu_m"}, {"MB FREE", "free.memory_mb"}, {"OF", "total.memory_mb"}, {"JOBS", "assignments"}}
)

func validateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "validate FILE…", Short: "Check pipeline files", Example: "  fragua validate fragua.yaml",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(errors.New("want FILE…; see fragua validate --help"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			bad := 0
			for _, f := range args {
				p, err := pipelinefile.Load(f)
				if err != nil {
					fmt.Fprintln(cmd.ErrOrStderr(), err)
					bad++
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: pipeline %s with %d jobs is valid\n", f, p.Name, len(p.Jobs))
			}
			if bad > 0 {
				return exitError{exitUsage, errTold}
			}
			return nil
		},
	}
}

func pipelineCommand() *cobra.Command {
	send := func(use, short, method, path string, named bool) *cobra.Command {
		var id string
		cmd := &cobra.Command{Use: use, Short: short, Args: exactly(strings.Count(use, " ")), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
			spec, err := pipelinefile.Load(args[len(args)-1])
			if err != nil {
				return usage(err)
			}
			in := map[string]any{"spec": spec}
			target := path
			if named {
				target = fmt.Sprintf(path, url.PathEscape(args[0]))
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
		if !named {
			cmd.Flags().StringVar(&id, "id", "", "the pipeline's id; made by the server unless given")
		}
		return cmd
	}
	runs := &cobra.Command{Use: "runs PIPELINE", Short: "List runs of a pipeline", Args: exactly(1), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
		return page(cmd, c, "/pipelines/"+url.PathEscape(args[0])+"/runs", runColumns, nil)
	})}
	pageFlags(runs, nil)
	var env []string
	start := &cobra.Command{Use: "run PIPELINE", Short: "Run a pipeline", Args: exactly(1), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
		vars, err := variables(env)
		if err != nil {
			return usage(err)
		}
		var out any
		if err := c.Call(cmd.Context(), "POST", "/pipelines/"+url.PathEscape(args[0])+"/runs", map[string]any{"env": vars}, &out); err != nil {
			return err
		}
		return show(cmd, out, runColumns)
	})}
	outputFlag(start)
	start.Flags().StringArrayVar(&env, "env", nil, "NAME=VALUE, or NAME to pass this environment's on")
	return group("pipeline", "Pipelines and their runs",
		send("create FILE", "Create a pipeline from a file", "POST", "/pipelines", false),
		send("update PIPELINE FILE", "Make a new version of a pipeline", "PUT", "/pipelines/%s", true),
		list("list", "List pipelines", "/pipelines", pipeColumns), one("get PIPELINE", "Show a pipeline", "GET", "/pipelines/%s", pipeColumns), start, runs,
		one("status RUN", "Show a run", "GET", "/runs/%s", runColumns), one("cancel RUN", "Cancel a run", "POST", "/runs/%s/cancel", runColumns),
		one("retry RUN", "Run again what failed of a run, and what depends on it", "POST", "/runs/%s/retry", runColumns))
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
	return out, nil
}

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

func workerCommand() *cobra.Command {
	logs := &cobra.Command{Use: "logs WORKER", Short: "Print what a worker itself said", Args: exactly(1), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
		return stream(cmd, c, "/workers/"+url.PathEscape(args[0])+"/logs", cmd.OutOrStdout())
	})}
	return group("worker", "Workers", list("list", "List workers", "/workers", workColumns, "state"), one("get WORKER", "Show a worker", "GET", "/workers/%s", workColumns),
		logs, one("terminate WORKER", "Terminate a worker", "DELETE", "/workers/%s", workColumns))
}

func nodeCommand() *cobra.Command {
	return group("node", "Nodes: what there is to run jobs on", list("list", "List nodes", "/nodes", nodeColumns), one("get NODE", "Show a node", "GET", "/nodes/%s", nodeColumns))
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

// refPath turns REPOSITORY/NAME/VERSION into a path.
func refPath(ref string) (string, error) {
	parts := strings.Split(ref, "/")
	if len(parts) != 3 {
		return "", usage(errors.New("want REPOSITORY/NAME/VERSION"))
	}
	return "/artifacts/" + url.PathEscape(parts[0]) + "/" + url.PathEscape(parts[1]) + "/" + url.PathEscape(parts[2]), nil
}

func artifactCommand() *cobra.Command {
	ref := func(use, short, method, suffix string) *cobra.Command {
		cmd := &cobra.Command{Use: use, Short: short, Args: exactly(1), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
			path, err := refPath(args[0])
			if err != nil {
				return err
			}
			var out any
			if err := c.Call(cmd.Context(), method, path+suffix, nil, &out); err != nil {
				return err
			}
			return show(cmd, out, artColumns)
		})}
		outputFlag(cmd)
		return cmd
	}
	upload := &cobra.Command{Use: "upload REPOSITORY/NAME/VERSION FILE", Short: "Upload a file", Args: exactly(2), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
		f, err := os.Open(args[1])
		if err != nil {
			return usage(err)
		}
		defer f.Close()
		out, err := upload(cmd, c, args[0], f)
		if err != nil {
			return err
		}
		return show(cmd, out, artColumns)
	})}
	outputFlag(upload)
	var to string
	download := &cobra.Command{Use: "download REPOSITORY/NAME/VERSION", Short: "Download an artifact", Args: exactly(1), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
		path, err := refPath(args[0])
		if err != nil {
			return err
		}
		if to == "-" {
			return stream(cmd, c, path+"/content", cmd.OutOrStdout())
		}
		if to == "" {
			to = strings.Split(args[0], "/")[1]
		}
		f, err := os.CreateTemp(filepath.Dir(to), ".download-*")
		if err != nil {
			return err
		}
		defer os.Remove(f.Name()) // it is gone when all went well
		if err := errors.Join(stream(cmd, c, path+"/content", f), f.Close()); err != nil {
			return err
		}
		return os.Rename(f.Name(), to)
	})}
	download.Flags().StringVar(&to, "to", "", "file to write; - is standard output; the artifact's name unless given")
	var env string
	promote := &cobra.Command{Use: "promote REPOSITORY/NAME/VERSION", Short: "Let an artifact be used in an environment", Args: exactly(1), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
		path, err := refPath(args[0])
		if err != nil {
			return err
		}
		var out any
		if err := c.Call(cmd.Context(), "POST", path+"/promote", map[string]string{"env": env}, &out); err != nil {
			return err
		}
		return show(cmd, out, artColumns)
	})}
	promote.Flags().StringVar(&env, "env", "", "the environment")
	outputFlag(promote)
	return group("artifact", "Artifacts", upload, download, list("list", "List artifacts", "/artifacts", artColumns, "repository", "name"),
		ref("get REPOSITORY/NAME/VERSION", "Show an artifact", "GET", ""), promote,
		ref("validate REPOSITORY/NAME/VERSION", "Compare an artifact with its checksum", "POST", "/validate"), ref("delete REPOSITORY/NAME/VERSION", "Delete an artifact", "DELETE", ""))
}

// upload sends a content that can be read twice.
func upload(cmd *cobra.Command, c *client.Client, name string, content io.ReadSeeker) (out any, err error) {
	parts := strings.Split(name, "/")
	if len(parts) != 3 {
		return nil, usage(errors.New("want REPOSITORY/NAME/VERSION"))
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, content); err != nil {
		return nil, err
	}
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	q := url.Values{"repository": {parts[0]}, "name": {parts[1]}, "version": {parts[2]}, "checksum": {"sha256:" + hex.EncodeToString(sum.Sum(nil))}}
	resp, err := c.Do(cmd.Context(), http.MethodPost, "/artifacts?"+q.Encode(), content, http.Header{"Content-Type": {"application/octet-stream"}})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return out, json.NewDecoder(resp.Body).Decode(&out)
}

func eventsCommand() *cobra.Command {
	var (
		subjects []string
		follow   bool
		after    string
	)
	cmd := &cobra.Command{Use: "events", Short: "Print the event stream", Args: cobra.NoArgs, Example: "  fragua events --subject 'ci.job.>' --follow -o json",
		RunE: call(func(cmd *cobra.Command, _ []string, c *client.Client) error {
			format, _ := cmd.Flags().GetString("output")
			out := bufio.NewWriter(cmd.OutOrStdout())
			defer out.Flush()
			return c.Events(cmd.Context(), subjects, after, follow, func(_ string, e event.Event, raw []byte) error {
				if format == "json" {
					out.Write(append(raw, '\n'))
				} else {
					fmt.Fprintf(out, "%s  %-26s %s\n", e.Time.Local().Format("15:04:05.000"), e.Subject, printable(e.Key))
				}
				return out.Flush()
			})
		})}
	cmd.Flags().StringArrayVar(&subjects, "subject", nil, "only these, as NATS matches them: ci.job.>")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	cmd.Flags().StringVar(&after, "after", "0", "a place in the stream; 0 is all that is stored")
	outputFlag(cmd)
	return cmd
}

func auditCommand() *cobra.Command {
	return group("audit", "The audit trail", list("list", "List decisions, newest first", "/audit",
		[]column{{"TIME", "time"}, {"PRINCIPAL", "principal"}, {"ACTION", "action"}, {"RESOURCE", "resource"}, {"DECISION", "decision"}, {"REASON", "reason"}}, "principal", "action", "decision", "since"))
}

func secretCommand() *cobra.Command {
	set := &cobra.Command{Use: "set NAME", Short: "Set a secret, read from standard input", Args: exactly(1), Example: "  printf %s \"$TOKEN\" | fragua secret set NPM_TOKEN",
		RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
			b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 1<<20))
			if err != nil {
				return err
			}
			return c.Call(cmd.Context(), "PUT", "/secrets/"+url.PathEscape(args[0]), map[string]string{"value": strings.TrimSuffix(string(b), "\n")}, nil)
		})}
	rm := &cobra.Command{Use: "rm NAME", Short: "Delete a secret", Args: exactly(1), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
		return c.Call(cmd.Context(), "DELETE", "/secrets/"+url.PathEscape(args[0]), nil, nil)
	})}
	return group("secret", "Secrets", set, list("list", "List secrets' names", "/secrets", []column{{"NAME", "name"}, {"UPDATED", "updated_at"}}), rm)
}

func tokenCommand() *cobra.Command {
	var (
		tenant string
		scopes []string
		ttl    time.Duration
	)
	create := &cobra.Command{Use: "create", Short: "Make a token, and print it and nothing else", Args: cobra.NoArgs, RunE: call(func(cmd *cobra.Command, _ []string, c *client.Client) error {
		in := map[string]any{}
		if tenant != "" {
			in["tenant_id"] = tenant
		}
		if scopes != nil {
			in["scopes"] = scopes
		}
		if ttl > 0 {
			in["ttl_ms"] = ttl.Milliseconds()
		}
		var out struct {
			Token string `json:"token"`
		}
		if err := c.Call(cmd.Context(), "POST", "/tokens", in, &out); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), out.Token)
		return nil
	})}
	create.Flags().StringVar(&tenant, "tenant", "", "the tenant; one's own unless given")
	create.Flags().StringArrayVar(&scopes, "scope", nil, "a scope, such as job:create; one's own unless given")
	create.Flags().DurationVar(&ttl, "ttl", 0, "how long it is valid")
	return group("token", "Tokens", create)
}

func loginCommand() *cobra.Command {
	return &cobra.Command{Use: "login", Short: "Keep a token, read from standard input, for later calls", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 64<<10))
		if err != nil {
			return err
		}
		file, err := tokenFile()
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		return os.WriteFile(file, append([]byte(strings.TrimSpace(string(b))), '\n'), 0o600)
	}}
}

func logoutCommand() *cobra.Command {
	return &cobra.Command{Use: "logout", Short: "Forget the token that login kept", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		file, err := tokenFile()
		if err != nil {
			return err
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}}
}

func whoamiCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "whoami", Short: "Show who the token says you are", Args: cobra.NoArgs, RunE: call(func(cmd *cobra.Command, _ []string, c *client.Client) error {
		var out any
		if err := c.Call(cmd.Context(), "GET", "/whoami", nil, &out); err != nil {
			return err
		}
		return show(cmd, out, []column{{"SUBJECT", "sub"}, {"TENANT", "tenant_id"}, {"SCOPES", "scopes"}, {"UNTIL", "expires_at"}})
	})}
	outputFlag(cmd)
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs, Run: func(cmd *cobra.Command, _ []string) {
		fmt.Fprintln(cmd.OutOrStdout(), strings.TrimSpace("fragua "+version+" "+revision()), runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH)
	}}
}
