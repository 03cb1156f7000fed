package main

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/internal/client"
)

const (
	completeTime  = time.Second // somebody waits at a prompt
	completeItems = 100         // the newest: who wants an older one has its id at hand
)

// An offer says what may stand where a command wants an argument: the things of a
// listing, by the columns that make up their name, and by what people know them.
type offer struct {
	path  string
	name  []string
	about []string
}

// offers are those of the words in the commands' usage.
var offers = map[string]offer{
	"JOB":      {"/jobs", []string{"job_id"}, []string{"state", "name|tags.name"}},
	"RUN":      {"/jobs", []string{"run_id"}, nil},
	"PIPELINE": {"/pipelines", []string{"name|pipeline_id"}, []string{"pipeline_id"}},
	"WORKER":   {"/workers", []string{"worker_id"}, []string{"state", "job_id"}},
	"NODE":     {"/nodes", []string{"node_id"}, []string{"state"}},
	"NAME":     {"/secrets", []string{"name"}, nil},

	"REPOSITORY/NAME/VERSION": {"/artifacts", []string{"repository", "name", "version"}, []string{"status"}},
}

// completeArguments lets the shell complete the arguments of a command and of those
// below it: with what the server has, with pipeline files, or with nothing.
func completeArguments(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		completeArguments(c)
	}
	words := strings.Fields(cmd.Use)[1:]
	if cmd.HasSubCommands() || cmd.ValidArgsFunction != nil || slices.Contains(words, "--") {
		return // its commands, what it says itself, or a command of the machine
	}
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		word := ""
		if n := len(args); n < len(words) {
			word = words[n]
		} else if n > 0 && strings.Contains(words[len(words)-1], "…") {
			word = words[len(words)-1]
		}
		if strings.Contains(word, "FILE") {
			return nil, cobra.ShellCompDirectiveDefault
		}
		o, ok := offers[word]
		if !ok {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found, err := o.find(cmd)
		if err != nil {
			cobra.CompErrorln(err.Error())
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

var errNoServer = errors.New("no server runs there")

// find asks the server that the flags name. It starts none.
func (o offer) find(cmd *cobra.Command) ([]cobra.Completion, error) {
	if err := applySettings(cmd); err != nil {
		return nil, err
	}
	server, _ := cmd.Flags().GetString("server")
	if data, _ := cmd.Flags().GetString("data"); server == "" && data != "" {
		if h, err := look(data); err != nil || h.url == "" {
			return nil, errors.Join(errNoServer, err)
		}
	}
	c, done, err := connect(cmd)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
	defer cancel()
	return o.ask(ctx, c)
}

func (o offer) ask(ctx context.Context, c *client.Client) ([]cobra.Completion, error) {
	var page struct {
		Items []any `json:"items"`
	}
	q := url.Values{"limit": {strconv.Itoa(completeItems)}}
	if err := c.Call(ctx, "GET", o.path+"?"+q.Encode(), nil, &page); err != nil {
		return nil, err
	}
	var found []cobra.Completion
	seen := map[string]bool{}
	for _, item := range page.Items {
		name := strings.Join(texts(item, o.name), "/")
		if name == "" || seen[name] {
			continue
		}
		seen[name] = true
		found = append(found, cobra.CompletionWithDesc(name, strings.Join(texts(item, o.about), " ")))
	}
	return found, nil
}

// texts returns what there is at some paths of a thing.
func texts(v any, paths []string) []string {
	var out []string
	for _, p := range paths {
		if s := cell(v, p); s != "-" {
			out = append(out, s)
		}
	}
	return out
}
