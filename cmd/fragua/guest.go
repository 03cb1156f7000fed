package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"fragua.dev/fragua/internal/client"
)

const (
	maxEnter  = 3 // times that somebody else may have been faster
	yieldLook = 200 * time.Millisecond
)

// A guest is a command that works in a data folder: in the house of whoever has it, or in
// one of its own, while nobody has.
type guest struct {
	s    Settings      // of a house of its own
	new  bool          // that may be in a folder where nothing is yet
	left chan struct{} // closed when the guest leaves
	wg   sync.WaitGroup

	mu  sync.Mutex
	own House // or nil
}

func newGuest(s Settings, begins bool) *guest {
	return &guest{s: s, new: begins, left: make(chan struct{})}
}

// enter returns a client of the house, and whether that is the guest's own. It waits for
// one that is starting, and a moment for somebody to come, which is told on note if it
// takes long.
func (g *guest) enter(ctx context.Context, token string, moment time.Duration, note io.Writer) (c *client.Client, own bool, err error) {
	if token == "" {
		token, _ = keptToken("", g.s.Data) // else the owner's
	}
	for range maxEnter {
		h, err := find(ctx, g.s.Data, moment, note)
		if err != nil {
			return nil, false, err
		}
		if h.url != "" && (g.s.As == asCommand || h.as != asCommand) { // a command's house sets no jobs going
			c := h.client(g.s.Data, token)
			if h.as != asServer { // it ends before this command, maybe
				c.Elsewhere(g.elsewhere)
			}
			return c, false, nil
		}
		if !g.new && !kept(g.s.Data) {
			return nil, false, usage(fmt.Errorf("there is no server on %s, and nothing that one has kept; start one with fragua serve --data %s", g.s.Data, quotePath(g.s.Data)))
		}
		house, err := open(ctx, g.s)
		if err == nil {
			g.own = house
			if token == "" {
				token = house.Token()
			}
			c := client.New(house.URL(), token)
			c.Elsewhere(g.elsewhere)
			return c, true, nil
		}
		if !errors.Is(err, errLocked) {
			return nil, false, err
		}
	}
	return nil, false, fmt.Errorf("%w: %s", errLocked, holds(g.s.Data))
}

// elsewhere returns where the house is by now. When nobody has the folder, and nobody waits
// for it, it is opened in this process.
func (g *guest) elsewhere() string {
	if wished(g.s.Data) {
		return ""
	}
	h, err := look(g.s.Data)
	if err != nil || h.held {
		return h.url
	}
	house, err := open(context.Background(), g.s) // who is interrupted has to tidy up there yet
	if err != nil {
		return "" // somebody was faster
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.own = house
	return house.URL()
}

// yield has the guest make room, for as long as it is there, for who wants the folder for a
// server or a run: it follows what goes on, maybe for ever, and goes on there.
func (g *guest) yield() {
	g.wg.Go(func() {
		for {
			select {
			case <-g.left:
				return
			case <-time.After(yieldLook):
			}
			if wished(g.s.Data) {
				g.shut()
			}
		}
	})
}

// leave closes the house, if it is the guest's own.
func (g *guest) leave() {
	close(g.left)
	g.wg.Wait()
	g.shut()
}

func (g *guest) shut() {
	g.mu.Lock()
	own := g.own
	g.own = nil
	g.mu.Unlock()
	if own == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	_ = own.Close(ctx) // what it kept is kept
}
