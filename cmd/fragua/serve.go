package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/internal/observe"
)

const (
	drainTime = 20 * time.Second // for calls that are being answered, after SIGTERM
	serverGC  = 300              // percent: memory for speed, within reason
)

func init() {
	boot = func(ctx context.Context, s Settings) (House, error) { return openHouse(ctx, s) }
}

func serveCommand() *cobra.Command {
	s := Settings{}
	var services, level string
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the server: every service in one process", Args: cobra.NoArgs,
		Long: "Runs the server. On first start it writes DIR/owner.token, with which the client\n" +
			"commands on this machine find their way in. SIGTERM ends it; running jobs go on\n" +
			"and are taken up by the next start. The process provider does not isolate jobs.",
		Example: "  fragua serve --data /srv/fragua\n  fragua serve --data /tmp/f --listen 127.0.0.1:0   # the address stands in /tmp/f/address",
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
			if err := supported(s, services); err != nil {
				return usage(err)
			}
			return serve(cmd.Context(), s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.Listen, "listen", "127.0.0.1:7070", "HOST:PORT of the API; port 0 picks one, see DIR/address")
	f.StringVar(&services, "services", "all", "services that run here")
	f.StringVar(&s.Database, "database", "sqlite", "where data is kept")
	f.StringVar(&s.NATS, "nats", "", "URL of an external NATS server; embedded unless given")
	f.StringVar(&s.NATSListen, "nats-listen", "", "HOST:PORT that opens the embedded bus")
	f.StringVar(&s.Provider, "provider", "process", "what workers are: process")
	f.IntVar(&s.MaxWorkers, "max-workers", 0, "workers at one time; 512 unless given")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// supported says plainly what this version cannot do yet.
func supported(s Settings, services string) error {
	switch {
	case !isAddress(s.Listen):
		return errors.New("--listen: want HOST:PORT, with a port from 0 to 65535")
	case s.NATSListen != "" && !isAddress(s.NATSListen):
		return errors.New("--nats-listen: want HOST:PORT, with a port from 0 to 65535")
	case services != "all":
		return errors.New("--services: this version runs all services in one process; leave it at all")
	case s.Database != "sqlite" && s.Database != "":
		return errors.New("--database: this version keeps its data in SQLite only")
	case s.Provider != "process" && s.Provider != "":
		return fmt.Errorf("--provider: this version has the process provider only, not %s", strings.SplitN(s.Provider, "\n", 2)[0])
	}
	return nil
}

func serve(ctx context.Context, s Settings) error {
	debug.SetGCPercent(serverGC)
	h, err := openHouse(ctx, s)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "fragua %s serves %s\n  data   %s\n  token  %s\n", version, h.URL(), s.Data, filepath.Join(s.Data, "owner.token"))
	select {
	case <-ctx.Done():
	case err = <-h.Failed():
	}
	drain, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	return errors.Join(err, h.Close(drain))
}
