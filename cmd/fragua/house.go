package main

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// Settings say how the platform is to run in this process.
type Settings struct {
	Data       string        // folder of everything it keeps
	As         string        // what for, which others read in the folder's lock; a server when empty
	Listen     string        // HOST:PORT of the API; port 0 picks one
	Services   []string      // rooms that run here; all when empty
	Database   string        // sqlite, or postgres://…
	NATS       string        // URL of an external bus; the embedded one when empty
	NATSListen string        // HOST:PORT that opens the embedded bus; none when empty
	Provider   string        // process, docker, kubernetes
	MaxQueue   int           // jobs that have not ended; 0 is 100,000
	MaxWorkers int           // at one time; 0 leaves it to the machine
	Outlive    time.Duration // how long jobs go on without this process; 0 is an agent's lease
	Log        *slog.Logger
}

// A House is the platform at work in this process.
type House interface {
	URL() string                     // of its API
	Token() string                   // the owner's
	Close(ctx context.Context) error // finishes what is being answered until ctx ends
}

// boot starts the platform in this process. It is a variable so that the client
// commands can be tried without one.
var boot = func(ctx context.Context, s Settings) (House, error) {
	return nil, errors.New("this build has no embedded platform; use --server URL")
}
