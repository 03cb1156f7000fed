package main

import (
	"bufio"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/client"
)

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
			return c.Events(cmd.Context(), subjects, after, follow, func(_ string, e event.Event, raw []byte) error {
				switch format {
				case "json":
					out.Write(append(raw, '\n'))
				case "yaml":
					out.WriteString("---\n")
					if err := writeYAML(out, raw); err != nil {
						return err
					}
				default:
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
	verify := &cobra.Command{Use: "verify", Short: "Prove that the audit trail is whole (not in this version)", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		return errors.New("this version cannot prove that the audit trail is whole: its records are not chained yet, that comes in a later version; nothing was verified")
	}}
	return group("audit", "The audit trail", verify, list("List decisions, newest first", "/audit",
		[]column{{"TIME", "time"}, {"PRINCIPAL", "principal"}, {"ACTION", "action"}, {"RESOURCE", "resource"}, {"DECISION", "decision"}, {"REASON", "reason"}}, "principal", "action", "decision", "since"))
}
