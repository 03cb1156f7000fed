// Package house runs rooms under one roof: it joins them by the bus, serves
// their part of the API on one address, and takes them down in order.
package house

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/sqldb"
)

// A Room is one context of the blueprint: its own database, what it hears, its
// part of the API, and what it does by itself.
type Room interface {
	Name() string
	DB() *sqldb.DB
	Subscriptions() []bus.Subscription
	Routes(api huma.API)
	// Run does the room's own work until ctx ends.
	Run(ctx context.Context) error
	Close() error
}

const (
	readHeader = 10 * time.Second
	roomTime   = 5 * time.Second // to find out whether a full disk has room again
	idleTime   = 2 * time.Minute
	maxHeader  = 64 << 10
)

// Config is what a House is made of.
type Config struct {
	Dir    string // address is written into it, unless Hidden
	Hidden bool   // clients on this machine are to find another process of the house
	Listen string // HOST:PORT; port 0 picks one
	Rooms  []Room // in the order a submission walks them; closed in reverse
	Bus    *bus.Bus
	API    huma.API
	Mux    *http.ServeMux
	// Wrap puts what every request passes through around the API.
	Wrap func(http.Handler) http.Handler
	Log  *slog.Logger
	// Ready says what this process waits for besides itself; nil: nothing.
	Ready func(context.Context) error
	// Inside is the door for the other processes of the house; nil: there are none.
	Inside *Inside
}

// Inside is what serves other processes of the house.
type Inside struct {
	Server   *http.Server
	Listener net.Listener
	API      func(http.Handler) // is given what every request passes through
}

// House is rooms at work.
type House struct {
	cfg    Config
	server *http.Server
	addr   string
	ready  atomic.Bool
	stop   context.CancelFunc
	wg     sync.WaitGroup
	failed chan error
}

// Start opens the doors: when it returns, the API answers.
func Start(ctx context.Context, cfg Config) (*House, error) {
	h := &House{cfg: cfg, failed: make(chan error, len(cfg.Rooms)+2)}
	for _, r := range cfg.Rooms {
		cfg.Bus.Listen(r.Name(), r.DB(), r.Subscriptions()...)
		cfg.Bus.Carry(r.Name(), r.DB())
		r.Routes(cfg.API)
	}
	cfg.Mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, "") })
	cfg.Mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		answer(w, h.waitsFor(r.Context()))
	})
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("%w; choose another --listen, or port 0 for a free one", err)
	}
	h.addr = l.Addr().String()
	if err := cfg.Bus.Start(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	running, stop := context.WithCancel(context.Background())
	h.stop = stop
	for _, r := range cfg.Rooms {
		h.wg.Go(func() {
			if err := r.Run(running); err != nil && running.Err() == nil {
				h.failed <- fmt.Errorf("%s: %w", r.Name(), err)
			}
		})
	}
	api := cfg.Wrap(cfg.Mux)
	h.server = &http.Server{
		Handler: api, ReadHeaderTimeout: readHeader, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		ErrorLog:    slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return running },
	}
	h.serve(h.server, httpapi.Listener(l))
	if in := cfg.Inside; in != nil {
		in.API(api)
		in.Server.BaseContext = h.server.BaseContext
		h.serve(in.Server, in.Listener)
	}
	h.ready.Store(true)
	if cfg.Hidden {
		return h, nil
	}
	if err := writeAddress(cfg.Dir, h.addr); err != nil {
		return nil, errors.Join(err, h.Close(ctx))
	}
	return h, nil
}

func (h *House) serve(s *http.Server, l net.Listener) {
	h.wg.Go(func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			h.failed <- err
		}
	})
}

// writeAddress puts the address where clients of this machine look for it.
func writeAddress(dir, addr string) error {
	tmp := filepath.Join(dir, "address.new")
	if err := os.WriteFile(tmp, []byte(addr+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, "address"))
}

// waitsFor says why the house can do nothing for now, or nothing.
func (h *House) waitsFor(ctx context.Context) string {
	if !h.ready.Load() || h.cfg.Ready != nil && h.cfg.Ready(ctx) != nil {
		return "starting"
	}
	ctx, cancel := context.WithTimeout(ctx, roomTime)
	defer cancel()
	for _, r := range h.cfg.Rooms {
		if err := r.DB().Room(ctx); err != nil {
			return err.Error()
		}
	}
	return ""
}

func answer(w http.ResponseWriter, waits string) {
	w.Header().Set("Content-Type", "application/json")
	if waits != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "{\"status\":%q}\n", waits)
		return
	}
	fmt.Fprintln(w, `{"status":"ok"}`)
}

// Address returns HOST:PORT of the API.
func (h *House) Address() string { return h.addr }

// Failed yields why a room gave up, which none should.
func (h *House) Failed() <-chan error { return h.failed }

// Close finishes the calls that are being answered, until ctx ends, and takes the
// rooms down. What runs on workers goes on, and is taken up by the next start.
func (h *House) Close(ctx context.Context) error {
	h.ready.Store(false)
	if !h.cfg.Hidden {
		os.Remove(filepath.Join(h.cfg.Dir, "address"))
	}
	servers := []*http.Server{h.server}
	if h.cfg.Inside != nil {
		servers = append(servers, h.cfg.Inside.Server)
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	var wg sync.WaitGroup
	for _, s := range servers {
		wg.Go(func() { _ = s.Shutdown(short) }) // what is left then is closed
	}
	wg.Wait()
	cancel()
	h.stop() // ends streams
	for _, s := range servers {
		s.Close()
	}
	h.wg.Wait()
	h.cfg.Bus.Stop()
	var errs []error
	for i := len(h.cfg.Rooms) - 1; i >= 0; i-- {
		errs = append(errs, h.cfg.Rooms[i].Close())
	}
	return errors.Join(errs...)
}
