package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"fragua.dev/fragua/contract/artifacts"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/eventdocs"
	"fragua.dev/fragua/internal/house"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/observe"
	"fragua.dev/fragua/security"
)

// opened is a house at work in this process: all its rooms, or some.
type opened struct {
	Settings
	now    func() time.Time
	ids    ident.Source
	log    *slog.Logger
	house  *house.House
	stream *bus.Stream
	see    *observe.Observe
	token  string
	lock   lock
	undo   []func() error // of what stands around the house, last first

	who    *security.Room   // nil: it is in another process, as are the next two
	keeper artifacts.Keeper // of the artifact room
	alert  func(e event.Event, room string, err error)
	apart  *apart // the other processes; nil: all rooms are in this one
}

// here says whether a room is in this process.
func (o *opened) here(room string) bool {
	return len(o.Services) == 0 || slices.Contains(o.Services, room)
}

func (o *opened) dir(name string) string { return filepath.Join(o.Data, name) }

// openHouse opens the rooms that s names.
func openHouse(ctx context.Context, s Settings) (_ *opened, err error) {
	o := &opened{Settings: s, log: s.Log, now: time.Now, ids: ident.NewSource(time.Now)}
	var open []house.Room
	defer func() {
		if err == nil {
			return
		}
		for _, r := range slices.Backward(open) {
			err = errors.Join(err, r.Close())
		}
		err = errors.Join(err, o.abandon())
	}()
	o.lock, err = lockSoon(ctx, s.Data, cmp.Or(s.As, asServer), func(by string) {
		o.log.Warn("waits for the data folder, in which a command is at work", "by", by, "at_most", patience.String())
	}, s.Services...)
	if err != nil {
		return nil, err
	}
	o.undo = append(o.undo, o.lock.Close)
	if o.here(front) { // what a server that was killed has left is no sign of this one
		if err := os.Remove(o.dir("address")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	for _, d := range []string{"bus", "logs", "artifacts", "workers", "security"} {
		if err := os.MkdirAll(o.dir(d), 0o700); err != nil {
			return nil, err
		}
	}
	o.see = observe.New(observe.Config{Log: o.log, Now: o.now})
	o.undo = append(o.undo, func() error { o.see.Close(); return nil })
	if err := o.openBus(ctx); err != nil {
		return nil, err
	}
	if len(s.Services) > 0 {
		o.apart = newApart(s)
		o.undo = append(o.undo, o.apart.Close)
	}
	for _, r := range rooms {
		if o.here(r.name) {
			room, err := r.open(o, ctx)
			if err != nil {
				return nil, err
			}
			open = append(open, room)
		}
		if r.name == "security" && o.apart != nil {
			if err := o.meet(ctx); err != nil {
				return nil, err
			}
		}
	}
	if err := o.start(ctx, open); err != nil {
		return nil, err
	}
	open = nil // the house closes them
	if err := o.tellAddress(ctx); err != nil {
		return nil, errors.Join(err, o.house.Close(ctx))
	}
	if o.who != nil {
		o.token, err = readToken(o.dir("owner.token"))
	}
	return o, err
}

// start puts a roof over the rooms.
func (o *opened) start(ctx context.Context, open []house.Room) error {
	mux := http.NewServeMux()
	mux.Handle("GET /asyncapi.yaml", eventdocs.Handler())
	api := httpapi.New(mux, version)
	carrier := bus.New(bus.Config{Log: o.log, Now: o.now, Stream: o.stream, Alert: o.alert})
	o.see.Metrics().WatchQueue("bus", carrier.Pending)
	cfg := house.Config{
		Dir: o.Data, Hidden: !o.here(front), Listen: o.Listen, Log: o.log, Mux: mux, API: api, Bus: carrier, Rooms: open,
		Wrap: func(h http.Handler) http.Handler {
			return o.see.Middleware(httpapi.Handler(o.see.Route(h), httpapi.Options{Verifier: o.verifier(), Log: o.log, Now: o.now}))
		},
	}
	if o.apart != nil {
		for _, r := range rooms {
			if !o.here(r.name) {
				r.plans.Routes(httpapi.Elsewhere(api, mux, r.name, o.apart.first().To(r.name)))
			}
		}
		inside, err := o.apart.inside()
		if err != nil {
			return err
		}
		cfg.Inside = inside
		if o.here(front) {
			cfg.Ready = o.othersReady
		}
	}
	var err error
	o.house, err = house.Start(ctx, cfg)
	return err
}

// abandon closes what was opened around a house that does not stand, or not any more.
func (o *opened) abandon() error {
	var errs []error
	for _, f := range slices.Backward(o.undo) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// URL returns the address of the API.
func (o *opened) URL() string { return "http://" + o.house.Address() }

// Token returns the owner's token.
func (o *opened) Token() string { return o.token }

// Failed yields why a room gave up.
func (o *opened) Failed() <-chan error { return o.house.Failed() }

// Close takes the house down; what runs on workers is taken up by the next one.
func (o *opened) Close(ctx context.Context) error {
	return errors.Join(o.house.Close(ctx), o.abandon())
}
