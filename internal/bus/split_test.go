package bus_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/sqldb"
)

// A place is where processes of one house find their bus and their databases.
type place struct {
	t       *testing.T
	dir     string
	address atomic.Pointer[string]
}

// A proc is a process with some rooms: orchestration's carries the bus.
type proc struct {
	stream *bus.Stream
	bus    *bus.Bus
	dbs    map[string]*sqldb.DB
}

// open opens a process. Its scheduling room handles JobRequested by handle.
func (p *place) open(name string, handle func(context.Context, event.Event) error, rooms ...string) *proc {
	p.t.Helper()
	cfg := bus.StreamConfig{Dir: filepath.Join(p.dir, "bus"), Process: name, Rooms: rooms, User: "fragua", Password: "secret"}
	if rooms[0] == "orchestration" {
		cfg.Listen = "127.0.0.1:0"
	} else {
		cfg.Find = func() (string, error) {
			if a := p.address.Load(); a != nil {
				return *a, nil
			}
			return "", errors.New("nobody carries the bus")
		}
	}
	x := &proc{stream: openStream(p.t, cfg), dbs: map[string]*sqldb.DB{}}
	if a := x.stream.Address(); a != "" {
		p.address.Store(&a)
	}
	x.bus = bus.New(bus.Config{Stream: x.stream, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	for _, r := range rooms {
		if r != "orchestration" && r != "scheduling" {
			continue
		}
		x.dbs[r] = openDB(p.t, filepath.Join(p.dir, r+".db"))
		x.bus.Carry(r, x.dbs[r])
		if r == "scheduling" {
			x.bus.Listen(r, x.dbs[r], bus.On(event.JobRequested, func(ctx context.Context, e event.Event, _ event.JobRequest) error { return handle(ctx, e) }))
		}
	}
	if err := x.bus.Start(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(x.bus.Stop)
	return x
}

func (x *proc) close() {
	x.bus.Stop()
	x.stream.Close()
	for _, db := range x.dbs {
		db.Close()
	}
}

func (h *heard) handle(_ context.Context, e event.Event) error { h.take(e.ID); return nil }

// stuck does not get done with what it hears.
func stuck(ctx context.Context, _ event.Event) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestWhatAProcessHadInHandIsHeardByTheNext(t *testing.T) {
	p := &place{t: t, dir: t.TempDir()}
	one := p.open("one", nil, "orchestration")
	began := make(chan struct{})
	two := p.open("two", func(ctx context.Context, e event.Event) error {
		close(began)
		return stuck(ctx, e)
	}, "scheduling")
	emit(t, one.dbs["orchestration"], requested(1))
	<-began
	two.close()
	emit(t, one.dbs["orchestration"], requested(2))
	var h heard
	p.open("three", h.handle, "scheduling")
	eventually(t, "what was in hand, and what came meanwhile, is heard", func() bool { return h.len() == 2 })
}

func TestTheBusComesBackOnAnotherPort(t *testing.T) {
	p := &place{t: t, dir: t.TempDir()}
	one := p.open("one", nil, "orchestration")
	var h heard
	p.open("two", h.handle, "scheduling")
	emit(t, one.dbs["orchestration"], requested(1))
	eventually(t, "the first is heard", func() bool { return h.len() == 1 })
	was := *p.address.Load()
	one.close()
	p.address.Store(nil)
	one = p.open("one-2", nil, "orchestration")
	if *p.address.Load() == was {
		t.Skip("it is the same port")
	}
	emit(t, one.dbs["orchestration"], requested(2))
	eventually(t, "the second is heard", func() bool { return h.len() == 2 })
}

func TestRoomsSplitAndJoinAgain(t *testing.T) {
	p := &place{t: t, dir: t.TempDir()}
	var h heard
	all := p.open("all", h.handle, bus.Rooms...)
	emit(t, all.dbs["orchestration"], requested(1))
	eventually(t, "heard in memory", func() bool { return h.len() == 1 })
	if c := p.consumers(); len(c) > 0 {
		t.Errorf("one process needs no consumers: %v", c)
	}
	all.close()

	one, two := p.open("one", nil, "orchestration"), p.open("two", stuck, "scheduling")
	emit(t, one.dbs["orchestration"], requested(2))
	eventually(t, "two hears by a consumer", func() bool { return len(p.consumers()) == 1 })
	eventually(t, "the event is published", func() bool {
		n := 0
		err := one.stream.Tail(t.Context(), []string{"ci.job.requested"}, "0", false, func(string, event.Event) error { n++; return nil })
		return err == nil && n == 2
	})
	two.close()
	one.close()

	var again heard
	all = p.open("all-2", again.handle, bus.Rooms...)
	eventually(t, "what was not handled apart is heard together", func() bool { return again.has(requested(2).ID) })
	eventually(t, "the consumers have gone", func() bool { return len(p.consumers()) == 0 })
	emit(t, all.dbs["orchestration"], requested(3))
	eventually(t, "and it goes on in memory", func() bool { return again.has(requested(3).ID) })
}

func (h *heard) has(id ident.Event) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ids[id] > 0
}

// consumers returns the durable consumers of the bus.
func (p *place) consumers() (names []string) {
	p.t.Helper()
	nc, err := nats.Connect("nats://"+*p.address.Load(), nats.UserInfo("fragua", "secret"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, name := range []string{"FRAGUA_BUSINESS", "FRAGUA_AUDIT", "FRAGUA_TRACES"} {
		s, err := js.Stream(p.t.Context(), name)
		if err != nil {
			p.t.Fatal(err)
		}
		for c := range s.ListConsumers(p.t.Context()).Info() {
			if c.Config.Durable != "" {
				names = append(names, c.Name)
			}
		}
	}
	return names
}
