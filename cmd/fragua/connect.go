package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/internal/client"
)

const defaultURL = "http://127.0.0.1:7070"

const (
	readyTime = 10 * time.Second       // for a server that is starting
	soonTime  = 2 * time.Second        // for one that may have been started just before
	grace     = 300 * time.Millisecond // the same, for a run, which can do without
	findLook  = 50 * time.Millisecond
	noteTime  = time.Second // after which a wait is told
	dialTime  = time.Second
)

// begins marks commands that may be the first ones in a data folder: what they keep is for
// the run or the server that comes.
const begins = "begins"

// connect returns a client of the server that the flags name: --server; a server on
// --data, which is started for this call when none runs; or the default one.
func connect(cmd *cobra.Command) (c *client.Client, done func(), err error) {
	flags := cmd.Flags()
	server, _ := flags.GetString("server") // the flag is the root's
	token, _ := flags.GetString("token")
	data, _ := flags.GetString("data")
	if server == "" && data != "" {
		return inFolder(cmd, data, token)
	}
	if server == "" {
		server = defaultURL
	}
	if token == "" {
		token = findToken(server, data)
	}
	return client.New(server, token), func() {}, nil
}

// inFolder returns a client of the server on a data folder, or of one that it starts.
func inFolder(cmd *cobra.Command, data, token string) (c *client.Client, done func(), err error) {
	wait := time.Duration(0)
	_, first := cmd.Annotations[begins]
	if !first && !kept(data) {
		wait = soonTime
	}
	g := newGuest(Settings{Data: data, As: asCommand, Log: slog.New(slog.DiscardHandler)}, first)
	if c, _, err = g.enter(cmd.Context(), token, wait, cmd.ErrOrStderr()); err != nil {
		return nil, nil, err
	}
	if follows, _ := cmd.Flags().GetBool("follow"); follows {
		g.yield()
	}
	return c, g.leave, nil
}

// kept says whether a server has kept anything in a data folder.
func kept(data string) bool {
	_, err := os.Stat(filepath.Join(data, "orchestration.db"))
	return err == nil
}

// open starts the platform in this process, on a port that is free.
func open(ctx context.Context, s Settings) (House, error) {
	s.Listen = "127.0.0.1:0"
	return boot(ctx, s)
}

// A holder is who works in a data folder.
type holder struct {
	held bool   // there is one
	as   string // what it does there; empty when it has not said so
	url  string // of its API, once that answers
}

// client returns one of the holder, which may be started again on another port.
func (h holder) client(data, token string) *client.Client {
	if token == "" {
		token = tokenOf(data)
	}
	c := client.New(h.url, token)
	c.Elsewhere(func() string {
		address, err := readAddress(data)
		if err != nil {
			return "" // it has not started yet
		}
		return "http://" + address
	})
	return c
}

// find returns who works in a data folder. It waits for one that is starting, and for
// a moment for somebody to come, and tells so on note if that takes long.
func find(ctx context.Context, data string, moment time.Duration, note io.Writer) (holder, error) {
	began, told := time.Now(), false
	for {
		h, err := look(data)
		waited := time.Since(began)
		switch {
		case err != nil || h.url != "":
			return h, err
		case !h.held && waited >= moment:
			return h, nil
		case h.held && waited >= readyTime:
			return h, fmt.Errorf("the server on %s is not ready yet; try again", data)
		case !told && waited >= noteTime:
			told = true
			fmt.Fprintf(note, "waiting for the server on %s\n", data)
		}
		select {
		case <-time.After(findLook):
		case <-ctx.Done():
			return h, ctx.Err()
		}
	}
}

// look returns who works in a data folder now.
func look(data string) (h holder, err error) {
	if _, err := os.Stat(data); errors.Is(err, fs.ErrNotExist) {
		return h, nil // and locking it would make it
	}
	lock, err := lockDir(data, "")
	if err == nil {
		return h, lock.Close()
	}
	if !errors.Is(err, errLocked) {
		return h, err
	}
	h.held = true
	address, err := readAddress(data)
	if err == nil && answers(address) { // else it may be that of a server that was killed
		h.url = "http://" + address
	}
	h.as = lockedBy(data) // not before it answers: until it has signed, the last one's name is there
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return h, err
}

// answers says whether somebody listens at HOST:PORT.
func answers(address string) bool {
	c, err := net.DialTimeout("tcp", address, dialTime)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// readAddress returns HOST:PORT of the server that works in a data folder.
func readAddress(data string) (string, error) {
	b, err := os.ReadFile(filepath.Join(data, "address"))
	return strings.TrimSpace(string(b)), err
}

// findToken returns the token for a server: that of fragua login to it, or the owner's
// of the data folder that it serves, which is the one that is named, that it noted, or
// the usual one. No token is sent to a server that it is not for, nor to who has the
// address of one that is gone.
func findToken(server, data string) string {
	if t, err := keptToken(server, ""); err == nil {
		return t
	}
	folders := []string{data}
	if d, err := noted(server); err == nil {
		folders = append(folders, d)
	}
	if d, err := stateDir(); err == nil {
		folders = append(folders, d)
	}
	for _, d := range folders {
		if d != "" && serves(d, server) {
			return tokenOf(d)
		}
	}
	return ""
}

// serves says whether the server at a URL is the one that works in a data folder now.
func serves(data, server string) bool {
	at, err := origin(server)
	if err != nil {
		return false
	}
	h, err := look(data)
	if err != nil || h.url == "" {
		return false
	}
	return at == h.url || onThisMachine(server) && portOf(at) == portOf(h.url)
}

func portOf(origin string) string { return origin[strings.LastIndexByte(origin, ':')+1:] }

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
			inFlags(cmd, p)
			return usage(err)
		}
		return err
	}
}

// inFlags says of faults of a query which flag of the command they came from.
func inFlags(cmd *cobra.Command, p *client.Problem) {
	for i := range p.Errors {
		e := &p.Errors[i]
		name, query := strings.CutPrefix(e.Location, "query.")
		if e.Location == "header.Last-Event-ID" {
			name, query = "after", true
		}
		name, _, _ = strings.Cut(name, "[") // of a list
		if f := cmd.Flags().Lookup(strings.ReplaceAll(name, "_", "-")); query && f != nil {
			e.Location = "--" + f.Name
		}
	}
}
