package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"fragua.dev/fragua/internal/client"
)

// column is one column of a table: a heading, and where its value stands in the JSON.
type column struct{ head, path string }

// formats are the forms of listings.
var formats = []string{"table", "json", "yaml"}

// outputFlag adds -o to a command.
func outputFlag(cmd *cobra.Command) {
	choice(cmd, "output", "o", "table", "table, json or yaml", formats...)
}

// choice adds a flag that takes one of a few values, and completes them.
func choice(cmd *cobra.Command, name, short, value, help string, of ...string) {
	cmd.Flags().VarP(&oneOf{value, of}, name, short, help)
	must(cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(of, cobra.ShellCompDirectiveNoFileComp)))
}

// must is for what fails only when this program is written wrongly.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// oneOf is the value of a flag that takes one of a few.
type oneOf struct {
	value string
	of    []string
}

func (o *oneOf) String() string { return o.value }
func (o *oneOf) Type() string   { return "string" }
func (o *oneOf) Set(s string) error {
	if !slices.Contains(o.of, s) {
		last := len(o.of) - 1
		if last == 0 {
			return fmt.Errorf("want %s", o.of[0])
		}
		return fmt.Errorf("want %s or %s", strings.Join(o.of[:last], ", "), o.of[last])
	}
	o.value = s
	return nil
}

// show prints v, one thing or a page of them, as -o says.
func show(cmd *cobra.Command, v any, columns []column) error {
	format, _ := cmd.Flags().GetString("output")
	out := cmd.OutOrStdout()
	switch format {
	case "json":
		b, err := json.MarshalIndent(v, "", "  ")
		if err == nil {
			_, err = fmt.Fprintln(out, string(b))
		}
		return err
	case "yaml":
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return writeYAML(out, b)
	}
	return table(out, v, columns)
}

// writeYAML writes JSON as a YAML document with the same keys, in their order, and
// the same numbers.
func writeYAML(out io.Writer, b []byte) error {
	b, err := yaml.JSONToYAML(b)
	if err == nil {
		_, err = out.Write(b)
	}
	return err
}

func table(out io.Writer, v any, columns []column) error {
	rows := []any{v}
	next := ""
	if m, ok := v.(map[string]any); ok {
		if items, ok := m["items"].([]any); ok {
			rows = items
			next, _ = m["next_cursor"].(string)
		}
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for i, c := range columns {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, c.head)
	}
	fmt.Fprintln(w)
	for _, r := range rows {
		for i, c := range columns {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, cell(r, c.path))
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if next != "" {
		fmt.Fprintf(os.Stderr, "there is more: --cursor %s\n", next)
	}
	return nil
}

// cell finds a value by its path, such as spec.name, and writes it for people. Of two
// paths with a bar between them the second is for where there is nothing at the first.
func cell(v any, path string) string {
	if one, other, two := strings.Cut(path, "|"); two {
		if s := cell(v, one); s != "-" {
			return s
		}
		return cell(v, other)
	}
	for name := range strings.SplitSeq(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return "-"
		}
		v = m[name]
	}
	switch x := v.(type) {
	case nil:
		return "-"
	case string:
		if t, err := time.Parse(time.RFC3339Nano, x); err == nil {
			return t.Local().Format("2006-01-02 15:04:05")
		}
		return printable(x)
	case []any, map[string]any:
		if list, ok := names(x); ok {
			return list
		}
		b, _ := json.Marshal(x) // it came from JSON
		if text := string(b); text != "[]" && text != "{}" {
			return printable(text)
		}
		return "-"
	}
	return fmt.Sprint(v)
}

// names writes a list of texts.
func names(v any) (list string, ok bool) {
	items, ok := v.([]any)
	var out []string
	for _, i := range items {
		s, is := i.(string)
		ok = ok && is
		out = append(out, printable(s))
	}
	return strings.Join(out, ", "), ok && len(out) > 0
}

// printable keeps what others wrote from steering the terminal, and shows what would not
// be seen: a text could look like another one.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r < ' ' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0:
			b.WriteRune('\uFFFD')
		case unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp):
			fmt.Fprintf(&b, "<%U>", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// count writes how many of something there are.
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// list is the command that shows a page of things. A filter is a name of the API's, and
// after a colon the values that there are.
func list(short, path string, columns []column, filters ...string) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: short, Args: cobra.NoArgs, RunE: call(func(cmd *cobra.Command, _ []string, c *client.Client) error {
		return page(cmd, c, path, columns, filters)
	})}
	pageFlags(cmd, filters)
	return cmd
}

// filterHelp says of filters what form their values have.
var filterHelp = map[string]string{
	"action":      "only those of this action, such as Job::create",
	"decision":    "only those with this decision: permit, deny, revoke",
	"name":        "only those of this name",
	"pipeline_id": "only those of the pipeline with this id, such as pl_…",
	"principal":   "only those of this principal, as the listing shows it",
	"repository":  "only those of this repository",
	"run_id":      "only those of the run with this id, such as run_…",
	"since":       "only from this time on, such as 2026-01-31T15:00:00Z or 2026-01-31T15:00:00+01:00",
	"state":       "only those in this state",
}

func pageFlags(cmd *cobra.Command, filters []string) {
	outputFlag(cmd)
	cmd.Flags().Int("limit", 100, "how many at most")
	cmd.Flags().String("cursor", "", "where the page before ended")
	for _, f := range filters {
		name, values, few := strings.Cut(f, ":")
		flag, help := strings.ReplaceAll(name, "_", "-"), filterHelp[name]
		if help == "" {
			panic("fragua: nothing says what the filter " + name + " takes")
		}
		if few {
			choice(cmd, flag, "", "", help+": "+strings.ReplaceAll(values, ",", ", "), strings.Split(values, ",")...)
		} else {
			cmd.Flags().String(flag, "", help)
		}
	}
}

func page(cmd *cobra.Command, c *client.Client, path string, columns []column, filters []string) error {
	limit, _ := cmd.Flags().GetInt("limit")
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	for _, f := range append([]string{"cursor"}, filters...) {
		name, _, _ := strings.Cut(f, ":")
		if v, _ := cmd.Flags().GetString(strings.ReplaceAll(name, "_", "-")); v != "" {
			q.Set(name, v)
		}
	}
	join := "?"
	if strings.Contains(path, join) {
		join = "&"
	}
	var out any
	if err := c.Call(cmd.Context(), "GET", path+join+q.Encode(), nil, &out); err != nil {
		return err
	}
	return show(cmd, out, columns)
}

// one is a command about one thing; its first argument goes into the path.
func one(use, short, method, path string, columns []column) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: exactly(1), RunE: call(fetch(method, path, columns))}
	outputFlag(cmd)
	return cmd
}

// fetch is what a command about one thing does.
func fetch(method, path string, columns []column) func(*cobra.Command, []string, *client.Client) error {
	return func(cmd *cobra.Command, args []string, c *client.Client) error {
		var out any
		if err := c.Call(cmd.Context(), method, fmt.Sprintf(path, url.PathEscape(args[0])), nil, &out); err != nil {
			return err
		}
		return show(cmd, out, columns)
	}
}

// part is a list of parts of a thing: where it stands, how it is shown, and what stands
// before a part's name where it is told why it failed.
type part struct {
	name string
	of   []column
	what string
}

// whole is a command about one thing that people look at closely: below it stand its
// parts, and why it failed.
func whole(use, short, path string, columns []column, parts ...part) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: exactly(1), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
		var v map[string]any
		if err := c.Call(cmd.Context(), "GET", fmt.Sprintf(path, url.PathEscape(args[0])), nil, &v); err != nil {
			return err
		}
		if err := show(cmd, v, columns); err != nil {
			return err
		}
		if format, _ := cmd.Flags().GetString("output"); format != "table" {
			return nil
		}
		out := cmd.OutOrStdout()
		for _, p := range parts {
			if items, _ := v[p.name].([]any); len(items) > 0 {
				fmt.Fprintln(out)
				if err := table(out, map[string]any{"items": items}, p.of); err != nil {
					return err
				}
			}
		}
		if why := cell(v, "failure.message"); why != "-" {
			fmt.Fprintf(out, "\n%s: %s\n", cell(v, "failure.code"), why)
		}
		if lines := whys(v, parts); len(lines) > 0 {
			fmt.Fprintf(out, "\n%s\n", strings.Join(lines, "\n"))
		}
		return nil
	})}
	outputFlag(cmd)
	return cmd
}

const maxWhys = 20 // parts that it is told of why they failed

// whys says of parts of a thing why they failed, and then of those that were called off,
// which often is because of the former.
func whys(v any, parts []part) []string {
	var failed, off []string
	for _, p := range parts {
		m, _ := v.(map[string]any)
		items, _ := m[p.name].([]any)
		for _, i := range items {
			why := cell(i, "failure.message")
			if why == "-" || why == "" {
				continue
			}
			line := fmt.Sprintf("%s%s: %s: %s", p.what, cell(i, "name"), cell(i, "failure.code"), why)
			if cell(i, "state") == "CANCELLED" {
				off = append(off, line)
			} else {
				failed = append(failed, line)
			}
		}
	}
	lines := slices.Concat(failed, off)
	if more := len(lines) - maxWhys; more > 0 {
		lines = append(lines[:maxWhys], fmt.Sprintf("and %d more", more))
	}
	return lines
}

// cancel is a command that calls something off.
func cancel(what, short, path string, columns []column) *cobra.Command {
	var reason string
	cmd := &cobra.Command{Use: "cancel " + what, Short: short, Args: exactly(1), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
		var out any
		if err := c.Call(cmd.Context(), "POST", fmt.Sprintf(path, url.PathEscape(args[0])), map[string]string{"reason": reason}, &out); err != nil {
			return err
		}
		return show(cmd, out, columns)
	})}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who wonder later")
	outputFlag(cmd)
	return cmd
}

// exactly wants n arguments, and says so in the words of usage.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage(fmt.Errorf("want %s %s; see %s --help", cmd.CommandPath(), strings.TrimPrefix(cmd.Use, cmd.Name()+" "), cmd.CommandPath()))
		}
		return nil
	}
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(commands...)
	return cmd
}

// noCommand refuses arguments where the name of a command was wanted.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("%s has no command %s", cmd.CommandPath(), printable(args[0]))
	cmd.SuggestionsMinimumDistance = 1 + min(1, len(args[0])/4) // letters that differ
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usage(fmt.Errorf("%s; see %s --help", text, cmd.CommandPath()))
}
