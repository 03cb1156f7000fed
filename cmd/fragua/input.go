package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// until runs what may wait for somebody, as reading does, and gives it up when ctx ends:
// an interrupt is not kept waiting.
func until[T any](ctx context.Context, fn func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := fn()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// confidential reads what nobody may see from standard input, up to its end. On a terminal
// it asks for one line, and does not show it.
func confidential(cmd *cobra.Command, prompt string, most int64) ([]byte, error) {
	in := cmd.InOrStdin()
	f, ok := in.(*os.File)
	if !ok || !onTerminal(f) {
		return until(cmd.Context(), func() ([]byte, error) { return io.ReadAll(io.LimitReader(in, most)) })
	}
	before, err := term.GetState(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	fmt.Fprint(cmd.ErrOrStderr(), prompt+" (it is not shown): ")
	defer fmt.Fprintln(cmd.ErrOrStderr())
	b, err := until(cmd.Context(), func() ([]byte, error) { return term.ReadPassword(int(f.Fd())) })
	if cmd.Context().Err() != nil { // who reads on has hidden what is typed
		_ = term.Restore(int(f.Fd()), before)
	}
	return bytes.TrimSpace(b), err
}
