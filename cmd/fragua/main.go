// Fragua is a CI/CD platform in one program: the server with all its rooms, the
// worker's agent, and the command line.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fragua.dev/fragua/execution/agent"
	"fragua.dev/fragua/internal/observe"
)

// Exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// exitError ends the program with a code; an empty one has been told already.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

// usage marks an error as one of usage or input: nothing was started.
func usage(err error) error { return exitError{exitUsage, err} }

var errTold = errors.New("") // what went wrong has been shown

func main() {
	if len(os.Args) > 1 && os.Args[1] == "agent" { // the program in a worker: before anything that costs time
		os.Exit(agent.Main(os.Args[2:], observe.Logger(os.Stderr, slog.LevelInfo, true)))
	}
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup, which is to outlive its terminal
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	defer context.AfterFunc(ctx, insist)()
	begun := false
	root := rootCommand()
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		begun = true
		return applySettings(cmd)
	}
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var coded exitError
	if err != nil && !begun && !errors.As(err, &coded) { // cobra's own: no command has begun
		err = usage(fmt.Errorf("%s; see fragua --help", strings.TrimSpace(err.Error())))
	}
	switch {
	case err == nil:
		return 0
	case errors.As(err, &coded):
		if coded.err.Error() != "" {
			fmt.Fprintln(os.Stderr, "fragua:", coded.err)
		}
		return coded.code
	}
	if ctx.Err() != nil {
		if !errors.Is(err, context.Canceled) { // who interrupts knows it
			fmt.Fprintln(os.Stderr, "fragua:", err)
		}
		return exitInterrupted
	}
	fmt.Fprintln(os.Stderr, "fragua:", err)
	return exitFailed
}

// insist ends the program at the next Ctrl-C, after the signal that asked it to end by
// itself. A terminal that closes sends several others: they do not hasten it.
func insist() {
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt)
	go func() {
		<-again
		fmt.Fprintln(os.Stderr, "\nfragua: interrupted once more: left at once; what was started goes on with the next command here, or ends by itself")
		os.Exit(exitInterrupted)
	}()
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "fragua",
		Short: "A CI/CD platform in one program",
		Long: "Fragua runs pipelines: on this machine with nothing else installed (fragua run),\n" +
			"or as a server for a team (fragua serve).",
		Example:       "  fragua run                      run fragua.yaml of this folder\n  fragua serve --data /srv/fragua  run the server\n  fragua job list",
		Args:          noCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true, SilenceUsage: true, Version: version,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var bad *pflag.InvalidValueError
		if errors.As(err, &bad) {
			err = fmt.Errorf("--%s: %w", bad.GetFlag().Name, wanted(bad.GetFlag(), bad.Unwrap()))
		}
		return usage(fmt.Errorf("%w; see %s --help", err, cmd.CommandPath()))
	})
	f := root.PersistentFlags()
	f.String("config", "", "settings file (YAML)")
	f.String("server", "", "URL of the server (FRAGUA_URL or FRAGUA_SERVER; http://127.0.0.1:7070 unless given)")
	f.String("token", "", "bearer token (FRAGUA_TOKEN; the owner's of --data unless given)")
	f.String("data", "", "data folder of a server on this machine")
	f.Bool("no-color", false, "no colours")
	root.SetHelpCommand(&cobra.Command{Use: "help [COMMAND]", Short: "Help about a command", RunE: func(cmd *cobra.Command, args []string) error {
		about, rest, err := root.Find(args)
		if err == nil {
			err = noCommand(about, rest)
		}
		if err != nil {
			return err
		}
		about.InitDefaultHelpFlag()
		return about.Help()
	}})
	root.AddCommand(
		runCommand(), serveCommand(), validateCommand(), pipelineCommand(), jobCommand(), workerCommand(), nodeCommand(),
		artifactCommand(), eventsCommand(), auditCommand(), policyCommand(), secretCommand(), tokenCommand(), loginCommand(), logoutCommand(),
		whoamiCommand(), doctorCommand(), versionCommand(),
	)
	completeArguments(root)
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" { // cobra's own takes a shell that it does not know for a call for help
			cmd.Args, cmd.RunE = noCommand, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
	return root
}
