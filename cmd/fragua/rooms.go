package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"fragua.dev/fragua/artifact"
	"fragua.dev/fragua/console"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/execution"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/eventdocs"
	"fragua.dev/fragua/internal/house"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/observe"
	"fragua.dev/fragua/orchestration"
	"fragua.dev/fragua/scheduling"
	"fragua.dev/fragua/security"
	"fragua.dev/fragua/telemetry"
	"fragua.dev/fragua/worker"
	"fragua.dev/fragua/worker/process"
)

// opened is a house at work in this process.
type opened struct {
	house  *house.House
	stream *bus.Stream
	see    *observe.Observe
	lock   *os.File
	token  string
	log    *slog.Logger
	undo   []func() error // what was opened before the house stood, last first
}

// errLocked says that another process works in the data folder.
var errLocked = errors.New("another fragua works in this data folder")

// lockDir keeps other processes out of dir for as long as this one lives.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s", errLocked, dir)
	}
	return f, nil
}

// openHouse opens the rooms in the order in which a submission walks them.
func openHouse(ctx context.Context, s Settings) (_ *opened, err error) {
	o := &opened{log: s.Log}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.abandon())
		}
	}()
	if o.lock, err = lockDir(s.Data); err != nil {
		return nil, err
	}
	o.later(o.lock.Close)
	now, ids, log := time.Now, ident.NewSource(time.Now), s.Log
	dir := func(name string) string { return filepath.Join(s.Data, name) }
	for _, d := range []string{"bus", "logs", "artifacts", "workers", "security"} {
		if err := os.MkdirAll(dir(d), 0o700); err != nil {
			return nil, err
		}
	}

	// Pipes: what is measured, and what carries events.
	see := observe.New(observe.Config{Log: log, Now: now})
	o.see = see
	o.later(func() error { see.Close(); return nil })
	password, err := secretFile(dir("bus.password"))
	if err != nil {
		return nil, err
	}
	o.stream, err = bus.OpenStream(ctx, bus.StreamConfig{
		URL: s.NATS, Dir: dir("bus"), Listen: s.NATSListen, User: "fragua", Password: password,
		Process: ids("prc"), Rooms: bus.Rooms, Log: log,
	})
	if err != nil {
		return nil, err
	}
	o.later(func() error { o.stream.Close(); return nil })

	// Who may.
	who, err := security.Open(ctx, security.Config{Dir: dir("security"), TokenFile: dir("owner.token"), Now: now, IDs: ids, Log: log})
	if err != nil {
		return nil, err
	}
	o.later(who.Close)
	telling, err := telemetry.Open(ctx, telemetry.Config{Dir: s.Data, Now: now, IDs: ids, Log: log, Decider: who, Observe: see})
	if err != nil {
		return nil, err
	}
	o.later(telling.Close)

	// The way of a submission.
	accepting, err := orchestration.Open(ctx, orchestration.Config{Dir: s.Data, Now: now, IDs: ids, Log: log, Decider: who})
	if err != nil {
		return nil, err
	}
	o.later(accepting.Close)
	node := localNode(s)
	placing, err := scheduling.Open(ctx, scheduling.Config{
		Dir: s.Data, Now: now, IDs: ids, Log: log, Decider: who, Principal: who.Service("scheduling"), Nodes: []scheduling.NodeConfig{node},
	})
	if err != nil {
		return nil, err
	}
	o.later(placing.Close)
	maker, err := process.New(process.Config{
		Dir: dir("workers"), Command: []string{"/proc/self/exe", "agent"}, MaxWorkers: s.MaxWorkers, Warm: 2, Log: log,
	})
	if err != nil {
		return nil, err
	}
	making, err := worker.Open(ctx, worker.Config{
		Dir: s.Data, Now: now, IDs: ids, Log: log, Decider: who, Principal: who.Service("worker"), Authority: who.Authority(),
		Provider: maker, Nodes: []ident.Node{node.ID},
	})
	if err != nil {
		return nil, errors.Join(err, maker.Close())
	}
	o.later(making.Close)
	keeping, err := artifact.Open(ctx, artifact.Config{Dir: s.Data, Now: now, IDs: ids, Log: log, Decider: who, Principal: who.Service("artifact")})
	if err != nil {
		return nil, err
	}
	o.later(keeping.Close)
	running, err := execution.Open(ctx, execution.Config{
		Dir: s.Data, Now: now, IDs: ids, Log: log, Decider: who, Principal: who.Service("execution"), Authority: who.Authority(),
		Keeper: keeping.Keeper(), Vault: who.Vault(),
	})
	if err != nil {
		return nil, err
	}
	o.later(running.Close)
	showing, err := console.Open(ctx, console.Config{Dir: s.Data, Now: now, IDs: ids, Log: log, Decider: who, Tail: o.stream})
	if err != nil {
		return nil, err
	}
	o.later(showing.Close)

	mux := http.NewServeMux()
	mux.Handle("GET /asyncapi.yaml", eventdocs.Handler())
	carrier := bus.New(bus.Config{Log: log, Now: now, Stream: o.stream, Alert: telling.Alert})
	see.Metrics().WatchQueue("bus", carrier.Pending)
	o.house, err = house.Start(ctx, house.Config{
		Dir: s.Data, Listen: s.Listen, Log: log, Mux: mux, API: httpapi.New(mux, version), Bus: carrier,
		Rooms: []house.Room{who, telling, accepting, placing, making, keeping, running, showing},
		Wrap: func(h http.Handler) http.Handler {
			return see.Middleware(httpapi.Handler(see.Route(h), httpapi.Options{Verifier: who, Log: log, Now: now}))
		},
	})
	if err != nil {
		return nil, err
	}
	if err := who.Reached(ctx, o.URL()); err != nil {
		return nil, errors.Join(err, o.house.Close(ctx))
	}
	o.token, err = readToken(dir("owner.token"))
	return o, err
}

// secretFile returns what file holds, and makes it up if there is none.
func secretFile(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err == nil && len(b) >= 32 {
		return string(b), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var raw [24]byte
	rand.Read(raw[:]) // never fails: see crypto/rand
	secret := hex.EncodeToString(raw[:])
	return secret, os.WriteFile(file, []byte(secret), 0o600)
}

func readToken(file string) (string, error) {
	b, err := os.ReadFile(file)
	return strings.TrimSpace(string(b)), err
}

// localNode describes this machine to scheduling.
func localNode(s Settings) scheduling.NodeConfig {
	name, err := os.Hostname()
	if err != nil || !ident.Valid(name) {
		name = "local"
	}
	return scheduling.NodeConfig{
		ID: ident.Node(name), Provider: "process", Zone: "local", Pool: "default",
		Quota: spec.Quota{CPUm: int64(runtime.NumCPU()) * 1000, MemoryMB: memoryMB(), IO: 1000},
	}
}

// memoryMB returns this machine's memory in MiB.
func memoryMB() int64 {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return 1024
	}
	return int64(info.Totalram) * int64(info.Unit) >> 20
}

func (o *opened) later(f func() error) { o.undo = append(o.undo, f) }

// abandon closes what was opened for a house that does not stand.
func (o *opened) abandon() error {
	var errs []error
	for i := len(o.undo) - 1; i >= 0; i-- {
		errs = append(errs, o.undo[i]())
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
	err := o.house.Close(ctx)
	o.stream.Close()
	o.see.Close()
	return errors.Join(err, o.lock.Close())
}
