package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/danielgtaylor/huma/v2"

	"fragua.dev/fragua/artifact"
	"fragua.dev/fragua/console"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/execution"
	"fragua.dev/fragua/internal/far"
	"fragua.dev/fragua/internal/house"
	"fragua.dev/fragua/orchestration"
	"fragua.dev/fragua/scheduling"
	"fragua.dev/fragua/security"
	"fragua.dev/fragua/telemetry"
	"fragua.dev/fragua/worker"
	"fragua.dev/fragua/worker/process"
)

// rooms are all rooms, in the order in which they open: who may, what is seen, and
// then the way of a submission. A room opens in this process or in another; where it
// is not, its zero value still says what its part of the API is.
var rooms = []struct {
	name  string
	open  func(*opened, context.Context) (house.Room, error)
	plans interface{ Routes(huma.API) }
}{
	{"security", (*opened).security, &security.Room{}},
	{"telemetry", (*opened).telemetry, &telemetry.Room{}},
	{"orchestration", (*opened).orchestration, &orchestration.Room{}},
	{"scheduling", (*opened).scheduling, &scheduling.Room{}},
	{"worker", (*opened).worker, &worker.Room{}},
	{"artifact", (*opened).artifact, &artifact.Room{}},
	{"execution", (*opened).execution, &execution.Room{}},
	{"console", (*opened).console, &console.Room{}},
}

func (o *opened) security(ctx context.Context) (house.Room, error) {
	who, err := security.Open(ctx, security.Config{
		Dir: o.dir("security"), TokenFile: o.dir("owner.token"), Now: o.now, IDs: o.ids, Log: o.log, Issuer: o.reached(),
	})
	if err != nil {
		return nil, err
	}
	return who, o.guard(ctx, who)
}

func (o *opened) telemetry(ctx context.Context) (house.Room, error) {
	telling, err := telemetry.Open(ctx, telemetry.Config{Dir: o.Data, Now: o.now, IDs: o.ids, Log: o.log, Decider: o.decider("telemetry"), Observe: o.see})
	if err != nil {
		return nil, err
	}
	o.alert = telling.Alert
	if o.apart != nil {
		far.AnswerTelemetry(o.apart.hall, telling.Keep, telling.Alert)
	}
	return telling, nil
}

func (o *opened) orchestration(ctx context.Context) (house.Room, error) {
	return orchestration.Open(ctx, orchestration.Config{Dir: o.Data, Now: o.now, IDs: o.ids, Log: o.log, MaxLive: o.MaxQueue, Decider: o.decider("orchestration")})
}

func (o *opened) scheduling(ctx context.Context) (house.Room, error) {
	self, err := o.principal(ctx, "scheduling")
	if err != nil {
		return nil, err
	}
	return scheduling.Open(ctx, scheduling.Config{
		Dir: o.Data, Now: o.now, IDs: o.ids, Log: o.log, MaxQueue: o.MaxQueue, Decider: o.decider("scheduling"), Principal: self, Nodes: []scheduling.NodeConfig{localNode(o.MaxWorkers)},
		Hold: o.As == asCommand, // who looks, or notes something down, sets nothing going
	})
}

// warm returns how many agents are kept ready.
func (o *opened) warm() int {
	if o.As == asCommand {
		return 0
	}
	return 2
}

func (o *opened) worker(ctx context.Context) (house.Room, error) {
	self, err := o.principal(ctx, "worker")
	if err != nil {
		return nil, err
	}
	maker, err := process.New(process.Config{
		Dir: o.dir("workers"), Command: []string{"/proc/self/exe", "agent"}, MaxWorkers: o.MaxWorkers, Warm: o.warm(), Log: o.log,
	})
	if err != nil {
		return nil, err
	}
	making, err := worker.Open(ctx, worker.Config{
		Dir: o.Data, Now: o.now, IDs: o.ids, Log: o.log, Decider: o.decider("worker"), Principal: self, Authority: o.authority("worker"),
		Provider: maker, Nodes: []ident.Node{localNode(o.MaxWorkers).ID}, Outlive: o.Outlive,
	})
	if err != nil {
		return nil, errors.Join(err, maker.Close())
	}
	return making, nil
}

func (o *opened) artifact(ctx context.Context) (house.Room, error) {
	self, err := o.principal(ctx, "artifact")
	if err != nil {
		return nil, err
	}
	keeping, err := artifact.Open(ctx, artifact.Config{Dir: o.Data, Now: o.now, IDs: o.ids, Log: o.log, Decider: o.decider("artifact"), Principal: self})
	if err != nil {
		return nil, err
	}
	o.keeper = keeping.Keeper()
	if o.apart != nil {
		far.AnswerKeeper(o.apart.hall, o.keeper)
	}
	return keeping, nil
}

func (o *opened) execution(ctx context.Context) (house.Room, error) {
	self, err := o.principal(ctx, "execution")
	if err != nil {
		return nil, err
	}
	return execution.Open(ctx, execution.Config{
		Dir: o.Data, Now: o.now, IDs: o.ids, Log: o.log, Decider: o.decider("execution"), Principal: self, Authority: o.authority("execution"),
		Keeper: o.artifacts(), Vault: o.vault(),
	})
}

func (o *opened) console(ctx context.Context) (house.Room, error) {
	return console.Open(ctx, console.Config{Dir: o.Data, Now: o.now, IDs: o.ids, Log: o.log, Decider: o.decider("console"), Tail: o.stream})
}

// secretFile returns what file holds, and makes it up if there is none. Of several
// processes that do so at once, one's is taken by all.
func secretFile(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err == nil && len(b) >= 32 {
		return string(b), nil
	}
	if err == nil {
		return "", fmt.Errorf("%s is cut short: remove it, and it is made anew", file)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".secret-*") // 0600
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	var raw [24]byte
	rand.Read(raw[:]) // never fails: see crypto/rand
	_, err = f.WriteString(hex.EncodeToString(raw[:]))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", err
	}
	if err := os.Link(f.Name(), file); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	b, err = os.ReadFile(file)
	return string(b), err
}

func readToken(file string) (string, error) {
	b, err := os.ReadFile(file)
	return strings.TrimSpace(string(b)), err
}

// localNode describes this machine to scheduling.
func localNode(workers int) scheduling.NodeConfig {
	name, err := os.Hostname()
	if err != nil || !ident.Valid(name) {
		name = "local"
	}
	return scheduling.NodeConfig{
		ID: ident.Node(name), Provider: "process", Zone: "local", Pool: "default",
		Quota: spec.Quota{CPUm: int64(runtime.NumCPU()) * 1000, MemoryMB: memoryMB(), IO: 1000, Workers: int64(cmp.Or(workers, process.DefaultMaxWorkers))},
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
