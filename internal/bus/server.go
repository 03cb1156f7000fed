package bus

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"fragua.dev/fragua/contract/event"
)

const (
	maxPayload   = 16 << 20 // bytes of one event; see spec.MaxJobBytes
	startTimeout = 20 * time.Second
	busMemory    = 64 << 20 // bytes, of the server within
	busStore     = 8 << 30
)

// serve starts the server within. It is reachable from outside only when Listen
// says so: on loopback, where whoever can connect may read events and no more
// (unless it is Private), or elsewhere with the name and password of the data folder.
func (s *Stream) serve() error {
	opts := &server.Options{
		ServerName: "fragua", DontListen: s.cfg.Listen == "", NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: s.cfg.Dir, SyncInterval: syncInterval, MaxPayload: maxPayload,
		JetStreamMaxMemory: busMemory, JetStreamMaxStore: busStore, NoSystemAccount: true,
	}
	all := &server.User{Username: s.cfg.User, Password: s.cfg.Password}
	if s.cfg.Listen != "" {
		host, port, err := net.SplitHostPort(s.cfg.Listen)
		if err != nil {
			return fmt.Errorf("nats-listen: want HOST:PORT: %w", err)
		}
		if opts.Port, err = strconv.Atoi(port); err != nil {
			return fmt.Errorf("nats-listen: the port is no number")
		}
		if opts.Host = host; opts.Port == 0 {
			opts.Port = server.RANDOM_PORT
		}
		opts.Users = []*server.User{all}
		if ip := net.ParseIP(host); !s.cfg.Private && (host == "localhost" || ip != nil && ip.IsLoopback()) {
			opts.Users = append(opts.Users, reader())
			opts.NoAuthUser = "reader"
		}
	} else if s.cfg.User != "" {
		opts.Users = []*server.User{all}
	}
	ns, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	s.server = ns
	ns.Start()
	if !ns.ReadyForConnections(startTimeout) {
		return errors.New("the bus did not start in time: is nats-listen taken?")
	}
	return nil
}

const (
	reviveEvery = 10 * time.Second
	reviveRoom  = 16 << 20 // bytes of free disk, below which nothing is gained
)

// revive begins the streams of the server within anew from its files. A stream that
// once could not be written, for a full disk, takes nothing more and answers nobody
// until then, whatever room there is (nats-server 2.15 keeps the error).
func (s *Stream) revive() error {
	if s.server == nil {
		return nil
	}
	s.repair.Lock()
	defer s.repair.Unlock()
	var disk syscall.Statfs_t
	if err := syscall.Statfs(s.cfg.Dir, &disk); err != nil {
		return err
	}
	if time.Since(s.anew) < reviveEvery || disk.Bavail*uint64(disk.Bsize) < reviveRoom {
		return nil
	}
	s.anew = time.Now()
	s.cfg.Log.Warn("the bus answers nothing: its streams begin anew from their files")
	if err := s.server.ShutdownJetStream(); err != nil {
		return err
	}
	err := s.server.EnableJetStream(&server.JetStreamConfig{
		StoreDir: s.cfg.Dir, SyncInterval: syncInterval, MaxMemory: busMemory, MaxStore: busStore, Strict: true,
	})
	if err == nil { // consumers of before are gone, which tails would notice late
		next := make(chan struct{})
		close(*s.begun.Swap(&next))
	}
	return err
}

// beginning returns what is closed when the streams begin anew.
func (s *Stream) beginning() <-chan struct{} { return *s.begun.Load() }

// reader may hear every event, live and stored, and say nothing.
func reader() *server.User {
	hear := []string{"_INBOX.>"}
	for _, e := range event.Catalog() {
		hear = append(hear, e.Subject)
	}
	hear = append(hear, "ci.>")
	ask := []string{"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.ACK.>"}
	for _, c := range streams {
		for _, op := range []string{"STREAM.INFO.%s", "STREAM.MSG.GET.%s", "DIRECT.GET.%s", "DIRECT.GET.%s.>", "CONSUMER.CREATE.%s",
			"CONSUMER.CREATE.%s.>", "CONSUMER.INFO.%s.>", "CONSUMER.MSG.NEXT.%s.>", "CONSUMER.DELETE.%s.>"} {
			ask = append(ask, "$JS.API."+fmt.Sprintf(op, c.name))
		}
	}
	return &server.User{Username: "reader", Password: "reader", Permissions: &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: ask},
		Subscribe: &server.SubjectPermission{Allow: hear},
	}}
}

// Address returns HOST:PORT where the server within is open to others, or
// nothing.
func (s *Stream) Address() string {
	if s.server == nil || s.cfg.Listen == "" {
		return ""
	}
	return s.server.Addr().String()
}

// syncFiles makes durable what a former server has written to its files, and was
// killed before it synced.
func syncFiles(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // the server has replaced it
			return nil
		}
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

// machineBoot returns what tells this start of the machine from all others, or
// nothing: what a process that was killed had written to files is lost only when
// the machine begins anew.
func machineBoot() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id") // proc_sys_kernel(5)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
