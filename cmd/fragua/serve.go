package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/internal/observe"
)

const (
	outlive    = 5 * time.Minute // for an upgrade, and for a look at what went wrong
	minOutlive = 30 * time.Second
	maxOutlive = 24 * time.Hour
	drainTime  = 20 * time.Second // for calls that are being answered, after SIGTERM
	// A goroutine that syncs a commit holds its processor until the runtime takes it
	// back: with some more of them, the machine's own are not idle meanwhile.
	spareProcs = 2
)

func init() {
	boot = func(ctx context.Context, s Settings) (House, error) { return openHouse(ctx, s) }
}

func serveCommand() *cobra.Command {
	s := Settings{}
	var services, level string
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the server: every service in one process, or some of them", Args: cobra.NoArgs,
		Long: "Runs the server. On first start it writes DIR/owner.token, with which the client\n" +
			"commands on this machine find their way in: by a note of its port in the user's\n" +
			"state folder, $XDG_STATE_HOME/fragua/served. SIGTERM ends it; running jobs go on\n" +
			"and are taken up by the next start, if that comes within --outlive: an agent that\n" +
			"is alone for so long ends, and its job is lost (and tried again, if it has\n" +
			"retries). The process provider does not isolate jobs. Where fragua run has DIR, the\n" +
			"server waits a minute for its end.\n\n" +
			"With --services several processes on this machine share DIR, each with some of the\n" +
			"services. They find each other there, in whatever order they start. Clients go to\n" +
			"the one with orchestration, which also carries the bus.",
		Example: "  fragua serve --data /srv/fragua\n  fragua serve --data /tmp/f --listen 127.0.0.1:0   # the address stands in /tmp/f/address\n" +
			"  fragua serve --data DIR --services orchestration,scheduling,security,telemetry,console\n" +
			"  fragua serve --data DIR --services worker,execution,artifact",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if s.Data, err = cmd.Flags().GetString("data"); err != nil {
				return err
			}
			if s.Data == "" {
				if s.Data, err = stateDir(); err != nil {
					return err
				}
			}
			var lvl slog.Level
			if err := lvl.UnmarshalText([]byte(level)); err != nil {
				return usage(fmt.Errorf("--log-level: want debug, info, warn or error"))
			}
			s.Log = observe.Logger(os.Stderr, lvl, true)
			if s.Services, err = parseServices(services); err == nil {
				err = supported(s)
			}
			if err != nil {
				return usage(err)
			}
			if len(s.Services) > 0 && !slices.Contains(s.Services, front) && !cmd.Flags().Changed("listen") {
				s.Listen = "127.0.0.1:0" // clients go to the front's
			}
			return serve(cmd.Context(), s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.Listen, "listen", "127.0.0.1:7070", "HOST:PORT of the API; port 0 picks one, see DIR/address; without orchestration any free one")
	f.StringVar(&services, "services", "all", "services that run here: all, or some of orchestration,scheduling,worker,execution,telemetry,security,artifact,console")
	f.StringVar(&s.Database, "database", "sqlite", "where data is kept")
	f.StringVar(&s.NATS, "nats", "", "URL of a NATS server; unless given the embedded one, with --services that of the process with orchestration")
	f.StringVar(&s.NATSListen, "nats-listen", "", "HOST:PORT that opens the embedded bus; port 0 picks one, see DIR/nats.address; on loopback anyone may read events there, to write takes DIR/bus.password")
	f.StringVar(&s.Provider, "provider", "process", "what workers are: process")
	f.IntVar(&s.MaxWorkers, "max-workers", 0, "workers for jobs at one time; 512 unless given")
	f.IntVar(&s.MaxQueue, "max-queue", 0, "jobs that have not ended; more are refused with 429; 100000 unless given")
	f.DurationVar(&s.Outlive, "outlive", outlive, "how long running jobs go on when the server has ended, until the next one takes them up; 30 s at least")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// supported says plainly what this version cannot do yet.
func supported(s Settings) error {
	switch {
	case !isAddress(s.Listen):
		return errors.New("--listen: want HOST:PORT, with a port from 0 to 65535")
	case s.NATSListen != "" && !isAddress(s.NATSListen):
		return errors.New("--nats-listen: want HOST:PORT, with a port from 0 to 65535")
	case s.MaxWorkers < 0:
		return errors.New("--max-workers: want a number from 1 on, or 0 for the usual one")
	case s.MaxQueue < 0:
		return errors.New("--max-queue: want a number from 1 on, or 0 for the usual one")
	case s.Outlive < minOutlive || s.Outlive > maxOutlive:
		return fmt.Errorf("--outlive: want %v to %v", minOutlive, maxOutlive)
	case s.Database != "sqlite" && s.Database != "":
		return errors.New("--database: this version keeps its data in SQLite only")
	case s.Provider != "process" && s.Provider != "":
		return fmt.Errorf("--provider: this version has the process provider only, not %s", strings.SplitN(s.Provider, "\n", 2)[0])
	}
	return nil
}

// parseServices returns the rooms that run here; none stands for all.
func parseServices(list string) ([]string, error) {
	if list == "all" {
		return nil, nil
	}
	names := make([]string, len(rooms))
	for i, r := range rooms {
		names[i] = r.name
	}
	bad := func(what string) error {
		return fmt.Errorf("--services: %s; want all, or some of %s", what, strings.Join(names, ","))
	}
	var out []string
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		switch {
		case name == "":
			return nil, bad("a name is empty")
		case !slices.Contains(names, name):
			return nil, bad("one of the names is none of a service")
		case slices.Contains(out, name):
			return nil, bad(name + " stands there twice")
		}
		out = append(out, name)
	}
	if len(out) == len(names) {
		return nil, nil
	}
	return out, nil
}

func serve(ctx context.Context, s Settings) error {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + spareProcs)
	}
	small, stop := context.WithCancel(ctx)
	defer stop()
	go keepSmall(small)
	h, err := openHouse(ctx, s)
	if err != nil {
		return err
	}
	if len(s.Services) == 0 || slices.Contains(s.Services, front) {
		undo, err := note(h.house.Address(), s.Data)
		if err != nil {
			s.Log.Warn("client commands will not find the token by themselves", "error", err)
		} else {
			defer undo() // a note that is left is told by its address
		}
	}
	fmt.Fprintf(os.Stderr, "fragua %s serves %s\n  data   %s\n  token  %s\n", version, h.URL(), s.Data, filepath.Join(s.Data, "owner.token"))
	if address := h.busAddress(); address != "" {
		fmt.Fprintf(os.Stderr, "  nats   nats://%s\n", address)
	}
	if len(s.Services) > 0 {
		fmt.Fprintf(os.Stderr, "  rooms  %s\n", strings.Join(s.Services, ","))
	}
	select {
	case <-ctx.Done():
	case err = <-h.Failed():
	case err = <-h.lock.watch(small, s.Data):
		s.Log.Error("the server ends", "error", err)
	}
	drain, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	return errors.Join(err, h.Close(drain))
}
