package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/cobra"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/yamlwords"
	"fragua.dev/fragua/security"
)

const maxPolicyFile = 1 << 20 // bytes; of cases too

func policyCommand() *cobra.Command {
	check := &cobra.Command{
		Use: "check [FILE…]", Short: "Check Cedar policies against the schema",
		Long:    "Checks Cedar policies against the schema of what can be asked, and the rules of this\nhouse: each has an @id, and what forbids a @reason. Without FILE those that are built in.",
		Example: "  fragua policy check\n  fragua policy check mine.cedar",
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := decider(args); err != nil {
				return usage(err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), named(args)+" are valid")
			return nil
		},
	}
	var files []string
	test := &cobra.Command{
		Use: "test FILE", Short: "Ask policies the questions of a file, and compare the answers", Args: exactly(1),
		Long: "Asks each question of FILE, and says where the answer is another than expected:\n\n" +
			"  cases:\n" +
			"    - name: a reader does not create\n" +
			"      principal: {sub: ann, tenant: default, scopes: [job:read]}\n" +
			"      action: Job::create\n" +
			"      resource: {type: Job, id: job_1, tenant: default, attrs: {owner: ann}}\n" +
			"      context: {}\n" +
			"      expect: deny\n\n" +
			"A resource is of the principal's tenant unless it names one.",
		Example: "  fragua policy test cases.yaml\n  fragua policy test cases.yaml --policy mine.cedar",
		RunE: func(cmd *cobra.Command, args []string) error {
			decide, err := decider(files)
			if err != nil {
				return usage(err)
			}
			cases, err := readCases(args[0])
			if err != nil {
				return usage(err)
			}
			if failed := ask(cmd.OutOrStdout(), decide, cases); failed > 0 {
				return exitError{exitFailed, errTold}
			}
			return nil
		},
	}
	test.Flags().StringArrayVar(&files, "policy", nil, "file of Cedar policies to ask in place of those that are built in")
	return group("policy", "Policies: who may do what", check, test)
}

func named(files []string) string {
	if len(files) == 0 {
		return "the policies that are built in"
	}
	return "the policies of " + strings.Join(files, ", ")
}

// decider returns what decides by the policies of files, or by those of the house.
func decider(files []string) (func(authz.Question) authz.Answer, error) {
	var read []security.PolicyFile
	for _, name := range files {
		text, err := readFile(name, maxPolicyFile)
		if err != nil {
			return nil, err
		}
		read = append(read, security.PolicyFile{Name: name, Text: text})
	}
	return security.ReadPolicies(read...)
}

// readFile reads a file of a bounded size.
func readFile(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s: want at most %d bytes", name, most)
	}
	return b, err
}

// policyCase is a question, and the answer that someone expects.
type policyCase struct {
	Name      string `yaml:"name"`
	Principal struct {
		Sub    string       `yaml:"sub"`
		Tenant ident.Tenant `yaml:"tenant"`
		Scopes []string     `yaml:"scopes"`
	} `yaml:"principal"`
	Action   string `yaml:"action"`
	Resource struct {
		Type   string         `yaml:"type"`
		ID     string         `yaml:"id"`
		Tenant ident.Tenant   `yaml:"tenant"`
		Attrs  map[string]any `yaml:"attrs"`
	} `yaml:"resource"`
	Context map[string]any `yaml:"context"`
	Expect  string         `yaml:"expect"`
}

func readCases(file string) ([]policyCase, error) {
	text, err := readFile(file, maxPolicyFile)
	if err != nil {
		return nil, err
	}
	var in struct {
		Cases []policyCase `yaml:"cases"`
	}
	parsed, err := parser.Parse(yamlwords.Split(string(text)), 0)
	if err == nil && len(parsed.Docs) > 0 && parsed.Docs[0].Body != nil {
		err = yaml.NodeToValue(parsed.Docs[0].Body, &in, yaml.Strict())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var faults []error
	if len(in.Cases) == 0 {
		faults = append(faults, fmt.Errorf("%s: want cases", file))
	}
	for i, c := range in.Cases {
		switch {
		case c.Action == "" || c.Resource.Type == "":
			faults = append(faults, fmt.Errorf("%s: cases[%d]: want action and resource.type", file, i))
		case c.Expect != "permit" && c.Expect != "deny":
			faults = append(faults, fmt.Errorf("%s: cases[%d].expect: want permit or deny", file, i))
		}
	}
	return in.Cases, errors.Join(faults...)
}

// ask puts each case's question, reports to out, and counts the answers that were
// not expected.
func ask(out io.Writer, decide func(authz.Question) authz.Answer, cases []policyCase) (failed int) {
	for i, c := range cases {
		q := authz.Question{
			Principal: authz.Principal{Sub: c.Principal.Sub, Tenant: c.Principal.Tenant, Scopes: c.Principal.Scopes},
			Action:    c.Action,
			Resource:  authz.Resource{Type: c.Resource.Type, ID: c.Resource.ID, Tenant: c.Resource.Tenant, Attrs: attributes(c.Resource.Attrs)},
			Context:   attributes(c.Context),
		}
		if q.Resource.Tenant == "" {
			q.Resource.Tenant = q.Principal.Tenant
		}
		a := decide(q)
		got, why := "deny", a.Reason
		if a.Permit {
			got, why = "permit", "by "+strings.Join(a.Policies, ", ")
		}
		if c.Name == "" {
			c.Name = fmt.Sprintf("cases[%d]", i)
		}
		if got == c.Expect {
			fmt.Fprintf(out, "ok    %s: %s, %s\n", printable(c.Name), got, printable(why))
			continue
		}
		failed++
		fmt.Fprintf(out, "FAIL  %s: want %s, got %s, %s\n", printable(c.Name), c.Expect, got, printable(why))
	}
	fmt.Fprintf(out, "%d of %d cases are as expected\n", len(cases)-failed, len(cases))
	return failed
}

// attributes turns what YAML knows into what a question can hold; the rest is
// refused by whoever is asked.
func attributes(in map[string]any) map[string]any {
	out := make(map[string]any, len(in))
	for name, v := range in {
		switch x := v.(type) {
		case uint64:
			v = int64(min(x, 1<<63-1))
		case []any:
			texts := make([]string, 0, len(x))
			for _, t := range x {
				if s, ok := t.(string); ok {
					texts = append(texts, s)
				}
			}
			if len(texts) == len(x) {
				v = texts
			}
		}
		out[name] = v
	}
	return out
}
