package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/contract/spec"
)

func validateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "validate [FILE…]", Short: "Check pipeline files, or those of folders",
		Long:    "Check pipeline files, or those of folders; without FILE the one of this folder, which\nfragua run would run.",
		Example: "  fragua validate\n  fragua validate ci/build.yaml examples/go",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"."}
			}
			bad := 0
			for _, f := range args {
				f, err := findFile([]string{f})
				var p spec.Pipeline
				if err == nil {
					p, err = loadFile(cmd.Context(), f)
				}
				if cmd.Context().Err() != nil {
					return cmd.Context().Err()
				}
				if err != nil {
					fmt.Fprintln(cmd.ErrOrStderr(), err)
					bad++
					continue
				}
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: pipeline %s with %s is valid\n", f, p.Name, count(len(p.Jobs), "job")); err != nil {
					return err
				}
			}
			if bad > 0 {
				return exitError{exitUsage, errTold}
			}
			return nil
		},
	}
}
