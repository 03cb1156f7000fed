package main

import (
	"context"
	"errors"
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
			h, err := boot(cmd.Context(), Settings{Data: data, Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				return nil, done, err
			}
			done = func() {
				ctx, cancel := context.WithTimeout(context.Background(), drainTime)
				defer cancel()
				h.Close(ctx) // what it kept is kept
			}
			return client.New(h.URL(), h.Token()), done, nil
		}
	}
	if token == "" {
		token = findToken(data)
	}
	if server == "" {
		server = defaultURL
	}
	return client.New(server, token), done, nil
}

// running returns the URL of the server that works in a data folder, if one does.
func running(data string) (string, error) {
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

// findToken returns the token of fragua login, or the owner's of a server on this
// machine.
func findToken(data string) string {
	var files []string
	if data != "" {
		files = append(files, filepath.Join(data, "owner.token"))
	} else {
		if f, err := tokenFile(); err == nil {
			files = append(files, f)
		}
		if d, err := stateDir(); err == nil {
			files = append(files, filepath.Join(d, "owner.token"))
		}
	}
	for _, f := range files {
		if t, err := readToken(f); err == nil && t != "" {
			return t
		}
	}
	return ""
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
