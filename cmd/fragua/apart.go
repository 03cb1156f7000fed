package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"fragua.dev/fragua/contract/artifacts"
	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/identity"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/far"
	"fragua.dev/fragua/internal/house"
	"fragua.dev/fragua/internal/peer"
	"fragua.dev/fragua/security"
)

const (
	startTime  = time.Minute // for the processes that this one needs to be there
	reachTime  = time.Second // for a look whether one is
	renewCerts = 24 * time.Hour
)

// front is the room whose process carries the bus, and is the one that clients find.
const front = "orchestration"

// apart is what a process with some of the rooms has of those with the others.
type apart struct {
	folder  peer.Dir
	rooms   []string // that are here
	hall    *peer.Hall
	ids     []*peer.Identity
	callers map[string]*peer.Caller
	life    context.Context // ends with Close
	end     context.CancelFunc
	wg      sync.WaitGroup
}

func newApart(s Settings) *apart {
	a := &apart{folder: peer.Dir(s.Data), rooms: s.Services, hall: peer.NewHall(s.Log), callers: map[string]*peer.Caller{}}
	a.life, a.end = context.WithCancel(context.Background())
	return a
}

// Close ends what is done for the other processes.
func (a *apart) Close() error {
	a.end()
	a.wg.Wait()
	a.folder.Withdraw(a.rooms...)
	var errs []error
	for _, c := range a.callers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// first returns who asks for what this process does as a whole.
func (a *apart) first() *peer.Caller { return a.callers[a.rooms[0]] }

// inside opens the door for the other processes.
func (a *apart) inside() (*house.Inside, error) {
	peer.Answer(a.hall, "ready", nil, func(context.Context, string, struct{}) (struct{}, error) { return struct{}{}, nil })
	s, l, err := a.hall.Server(a.ids)
	if err != nil {
		return nil, err
	}
	if err := a.folder.Publish(l.Addr().String(), a.rooms...); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &house.Inside{Server: s, Listener: l, API: a.hall.API}, nil
}

// openBus connects to the bus, or carries it.
func (o *opened) openBus(ctx context.Context) error {
	password, err := secretFile(o.dir("bus.password"))
	if err != nil {
		return err
	}
	cfg := bus.StreamConfig{
		URL: o.NATS, Dir: o.dir("bus"), Listen: o.NATSListen, User: "fragua", Password: password,
		Process: o.ids("prc"), Rooms: bus.Rooms, Log: o.log,
	}
	folder, carries := peer.Dir(o.Data), false
	if len(o.Services) > 0 {
		cfg.Rooms = o.Services
		carries = o.here(front) && o.NATS == ""
		if carries {
			cfg.Private = cfg.Listen == "" // nobody has asked to have it opened
			cfg.Listen = cmp.Or(cfg.Listen, "127.0.0.1:0")
		} else if o.NATS == "" {
			cfg.Find = folder.Bus
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, startTime)
			defer cancel()
		}
	}
	if o.stream, err = bus.OpenStream(ctx, cfg); err != nil {
		if cfg.Find != nil {
			return fmt.Errorf("%w; the process with %s carries it: does that run?", err, front)
		}
		return err
	}
	if carries {
		err = folder.PublishBus(o.stream.Address())
	}
	o.undo = append(o.undo, func() error {
		if carries {
			folder.WithdrawBus()
		}
		o.stream.Close()
		return nil
	})
	return errors.Join(err, o.tellBus())
}

// busAddress returns HOST:PORT of the bus that this process opened to others because
// somebody asked for it, or nothing.
func (o *opened) busAddress() string {
	if o.NATSListen == "" {
		return ""
	}
	return o.stream.Address()
}

// tellBus writes where the open bus is, for whoever asked for any free port. What a
// server that was killed has left is removed.
func (o *opened) tellBus() error {
	if !o.here(front) {
		return nil
	}
	file := o.dir("nats.address")
	undo := func() error {
		if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	address := o.busAddress()
	if address == "" {
		return undo()
	}
	o.undo = append(o.undo, undo)
	fresh := file + ".new"
	if err := os.WriteFile(fresh, []byte(address+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(fresh, file)
}

// guard has who answer for the security room, here and in other processes.
func (o *opened) guard(ctx context.Context, who *security.Room) error {
	o.who = who
	if o.apart == nil {
		return nil
	}
	far.Guard{Verifier: who, Decider: who, Authority: who.Authority(), Vault: who.Vault(), Service: who.Service, Reached: who.Reached}.Answer(o.apart.hall)
	issue := func(ctx context.Context) error { return o.apart.folder.Issue(ctx, who.Authority(), bus.Rooms...) }
	o.apart.wg.Go(func() {
		t := time.NewTicker(renewCerts)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				if err := issue(o.apart.life); err != nil {
					o.log.Error("certificates of rooms could not be renewed", "error", err)
				}
			case <-o.apart.life.Done():
				return
			}
		}
	})
	return issue(ctx)
}

// meet gives the rooms of this process what they need to ask those of others.
func (o *opened) meet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	a := o.apart
	for _, r := range a.rooms {
		id, err := a.folder.Identity(ctx, r)
		if err != nil {
			return err
		}
		a.ids = append(a.ids, id)
		a.callers[r] = a.folder.Caller(id)
	}
	if !o.here("telemetry") {
		t := far.Telemetry{Caller: a.first(), Log: o.log}
		o.see.SetSink(t.Keep)
		o.alert = t.Alert
	}
	return nil
}

// asSecurity returns the security room of another process, as a room of this one asks
// it.
func (o *opened) asSecurity(room string) *far.Security {
	for _, id := range o.apart.ids {
		if id.Room == room {
			return &far.Security{Caller: o.apart.callers[room], Self: id, IDs: o.ids, Now: o.now}
		}
	}
	panic("no identity of " + room) // meet has seen to it, for each room that is here
}

func (o *opened) verifier() authz.Verifier {
	if o.who != nil {
		return o.who
	}
	return o.asSecurity(o.apart.rooms[0])
}

func (o *opened) decider(room string) authz.Decider {
	if o.who != nil {
		return o.who
	}
	return o.asSecurity(room)
}

func (o *opened) authority(room string) identity.Authority {
	if o.who != nil {
		return o.who.Authority()
	}
	return o.asSecurity(room)
}

func (o *opened) vault() artifacts.Vault {
	if o.who != nil {
		return o.who.Vault()
	}
	return o.asSecurity("execution")
}

func (o *opened) artifacts() artifacts.Keeper {
	if o.keeper != nil {
		return o.keeper
	}
	return far.Keeper{Caller: o.apart.callers["execution"]}
}

// principal returns who a room of this process is by itself.
func (o *opened) principal(ctx context.Context, room string) (authz.Principal, error) {
	if o.who != nil {
		return o.who.Service(room), nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	p, err := o.asSecurity(room).Service(ctx)
	if err != nil {
		return p, fmt.Errorf("%s: %w", room, err)
	}
	return p, nil
}

// reached returns the URL under which clients reach the house, as far as it is known
// before this process listens.
func (o *opened) reached() string {
	if o.apart == nil {
		return ""
	}
	address, err := readAddress(o.Data)
	if err != nil {
		return "" // the process that clients find tells it later
	}
	return "http://" + address
}

// tellAddress tells the security room under which URL clients reach the house.
func (o *opened) tellAddress(ctx context.Context) error {
	switch {
	case !o.here(front):
		return nil
	case o.who != nil:
		return o.who.Reached(ctx, o.URL())
	}
	o.apart.wg.Go(func() {
		if err := o.asSecurity(front).Reached(o.apart.life, o.URL()); err != nil && o.apart.life.Err() == nil {
			o.log.Error("the security service could not be told the server's address", "error", err)
		}
	})
	return nil
}

// othersReady says whether the rooms of other processes can be reached.
func (o *opened) othersReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	errs := make(chan error, len(rooms))
	n := 0
	for _, r := range rooms {
		if o.here(r.name) {
			continue
		}
		n++
		go func() {
			_, err := peer.Ask[struct{}](ctx, o.apart.first(), r.name, "ready", struct{}{})
			errs <- err
		}()
	}
	var all error
	for range n {
		all = errors.Join(all, <-errs)
	}
	return all
}
