package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/internal/client"
)

const defaultURL = "http://127.0.0.1:7070"

// connect returns a client of the server that the flags name: --server; a server on
// --data, which is started for this call when none runs; or the default one.
func connect(cmd *cobra.Command) (c *client.Client, done func(), err error) {
	done = func() {}
	flags := cmd.Flags()
	server, _ := flags.GetString("server") // the flag is the root's
	token, _ := flags.GetString("token")
	data, _ := flags.GetString("data")
	if server == "" && data != "" {
		if server, err = running(data); err != nil {
			return nil, done, err
		}
		if server == "" {
			if _, err := os.Stat(filepath.Join(data, "orchestration.db")); err != nil {
				return nil, done, usage(fmt.Errorf("there is no server on %s, and nothing that one has kept; start one with fragua serve --data %s", data, quotePath(data)))
			}
			h, err := boot(cmd.Context(), Settings{Data: data, Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				return nil, done, err
			}
			done = func() {
				ctx, cancel := context.WithTimeout(context.Background(), drainTime)
				defer cancel()
				_ = h.Close(ctx) // what it kept is kept
			}
			return client.New(h.URL(), h.Token()), done, nil
		}
	}
	if server == "" {
		server = defaultURL
	}
	if token == "" {
		token = findToken(server, data)
	}
	return client.New(server, token), done, nil
}

// running returns the URL of the server that works in a data folder, if one does.
func running(data string) (string, error) {
	if _, err := os.Stat(data); errors.Is(err, fs.ErrNotExist) {
		return "", nil // and locking it would make it
	}
	lock, err := lockDir(data)
	if err == nil {
		lock.Close()
		return "", nil
	}
	if !errors.Is(err, errLocked) {
		return "", err
	}
	address, err := readAddress(data)
	if errors.Is(err, fs.ErrNotExist) {
		return "", errors.New("the server on " + data + " is not ready yet; try again")
	}
	return "http://" + address, err
}

// readAddress returns HOST:PORT of the server that works in a data folder.
func readAddress(data string) (string, error) {
	b, err := os.ReadFile(filepath.Join(data, "address"))
	return strings.TrimSpace(string(b)), err
}

// findToken returns the token for a server: that of fragua login to it; the owner's
// of the data folder that is named, or that a server on this machine noted. No token
// is sent to a server that it is not for.
func findToken(server, data string) string {
	if data != "" {
		return tokenOf(data)
	}
	if t, err := keptToken(server); err == nil {
		return t
	}
	if d, err := noted(server); err == nil {
		return tokenOf(d)
	}
	if d, err := stateDir(); err == nil && onThisMachine(server) {
		return tokenOf(d)
	}
	return ""
}

// tokenOf returns the owner's token of a data folder, or nothing.
func tokenOf(data string) string {
	t, err := readToken(filepath.Join(data, "owner.token"))
	if err != nil {
		return ""
	}
	return t
}

// call runs fn with a client.
func call(fn func(cmd *cobra.Command, args []string, c *client.Client) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, done, err := connect(cmd)
		if err != nil {
			return err
		}
		defer done()
		err = fn(cmd, args, c)
		var p *client.Problem
		if errors.As(err, &p) && (p.Status == 400 || p.Status == 422) {
			return usage(err)
		}
		return err
	}
}
