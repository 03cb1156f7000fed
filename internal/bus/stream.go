package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/sqldb"
)

const (
	syncInterval = 2 * time.Second  // between fsyncs of JetStream's files
	dedupWindow  = 12 * time.Second // in which a repeated message id is dropped: twice ackTime and a margin; a start reads what it holds
	maxUnacked   = 4096             // publishes that JetStream has not acknowledged
	ackTime      = 5 * time.Second
	dialTime     = 5 * time.Second
	headerRoom   = 1 << 10         // bytes of a message's headers, which count as its payload
	beforeSplit  = 3 * dedupWindow // what is repeated within the window is not stored again
	fromHeader   = "Fragua-From"   // the process that published
)

// streams are the JetStream streams, one for each class of retention.
var streams = []struct {
	keep     event.Keep
	name     string
	maxAge   time.Duration
	maxBytes int64
}{
	{event.KeepBusiness, "FRAGUA_BUSINESS", 7 * 24 * time.Hour, 2 << 30},
	{event.KeepAudit, "FRAGUA_AUDIT", 30 * 24 * time.Hour, 1 << 30},
	{event.KeepTraces, "FRAGUA_TRACES", 24 * time.Hour, 256 << 20},
}

// StreamConfig says where the streams are.
type StreamConfig struct {
	URL string // of a NATS server or cluster; empty: a server within this process
	// Find returns HOST:PORT of the server, each time that it is to be connected to:
	// one that another process carries has another port after each start. It goes
	// before URL, and OpenStream waits for it until its ctx ends.
	Find     func() (string, error)
	Dir      string // where the server within keeps its files
	Listen   string // HOST:PORT where the server within is open to others; empty: nowhere
	Private  bool   // also on loopback, only who has the password hears
	User     string // name and password with every right, for Listen and URL
	Password string
	Process  string   // tells this process from the others that publish
	Rooms    []string // the rooms of this process
	Replicas int      // of each stream, on a cluster; 0 is 1
	Log      *slog.Logger
}

// Stream is the way to JetStream.
type Stream struct {
	cfg    StreamConfig
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
	local  map[string]bool
	repair sync.Mutex
	begun  atomic.Pointer[chan struct{}] // closed when the streams begin anew
	anew   time.Time                     // when the server within last began its streams anew
	born   time.Time                     // of the youngest stream: what was acknowledged earlier is not in it
	synced bool                          // what the streams had at the start is on the disk
	boot   string                        // which start of the machine holds the files; empty: unknown, or they are elsewhere

	unacked chan unacked // in the order in which they were published
}

// OpenStream connects to JetStream, or starts it, and makes the streams.
func OpenStream(ctx context.Context, cfg StreamConfig) (*Stream, error) {
	s := &Stream{cfg: cfg, local: map[string]bool{}, unacked: make(chan unacked, maxUnacked)}
	begun := make(chan struct{})
	s.begun.Store(&begun)
	for _, r := range cfg.Rooms {
		s.local[r] = true
	}
	opts := []nats.Option{
		nats.Name("fragua " + cfg.Process), nats.MaxReconnects(-1), nats.ReconnectWait(200 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond),
	}
	if cfg.User != "" {
		opts = append(opts, nats.UserInfo(cfg.User, cfg.Password))
	}
	switch {
	case cfg.Find != nil:
		cfg.URL = "nats://127.0.0.1" // the dialer knows better
		opts = append(opts, nats.SetCustomDialer(finder(cfg.Find)))
	case cfg.URL == "":
		if err := s.serve(); err != nil {
			return nil, fmt.Errorf("bus: %w", err)
		}
		opts = append(opts, nats.InProcessServer(s.server))
		if err := syncFiles(s.cfg.Dir); err != nil {
			cfg.Log.Warn("what the bus had stored cannot be synced", "error", err)
		} else {
			s.synced, s.boot = true, machineBoot()
		}
	}
	conn, err := nats.Connect(cfg.URL, opts...)
	for err != nil && cfg.Find != nil && ctx.Err() == nil {
		pause(ctx, 50*time.Millisecond)
		conn, err = nats.Connect(cfg.URL, opts...)
	}
	if err == nil {
		s.conn = conn
		s.js, err = jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(maxUnacked), jetstream.WithPublishAsyncTimeout(ackTime))
	}
	if err == nil {
		err = s.ensure(ctx)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("bus: %w", err)
	}
	return s, nil
}

// A finder dials wherever the server is now.
type finder func() (string, error)

// Dial connects to where the server is, and not to the address of the URL.
func (f finder) Dial(network, _ string) (net.Conn, error) {
	address, err := f()
	if err != nil {
		return nil, err
	}
	return net.DialTimeout(network, address, dialTime)
}

// splitMark is the name under which a stream says since when the rooms are in
// several processes. A room that has no place in the stream yet begins there: what
// was said before, it heard in memory.
const splitMark = "fragua-split-since"

// ensure makes the streams that are not there, and marks when the rooms split up.
func (s *Stream) ensure(ctx context.Context) error {
	s.repair.Lock()
	defer s.repair.Unlock()
	for _, c := range streams {
		var subjects []string
		for _, e := range event.Catalog() {
			if e.Keep == c.keep {
				subjects = append(subjects, e.Subject)
			}
		}
		was, err := s.js.Stream(ctx, c.name)
		if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("stream %s: %w", c.name, err)
		}
		want := jetstream.StreamConfig{
			Name: c.name, Subjects: subjects, MaxAge: c.maxAge, MaxBytes: c.maxBytes, Discard: jetstream.DiscardOld,
			Duplicates: dedupWindow, Storage: jetstream.FileStorage, Replicas: max(1, s.cfg.Replicas), MaxMsgSize: maxPayload,
			Metadata: map[string]string{},
		}
		if !s.joined() {
			want.Metadata[splitMark] = time.Now().Add(-beforeSplit).UTC().Format(time.RFC3339Nano)
			if was != nil && was.CachedInfo().Config.Metadata[splitMark] != "" {
				want.Metadata[splitMark] = was.CachedInfo().Config.Metadata[splitMark]
			}
		}
		made := was
		if was == nil || !settled(was.CachedInfo().Config, want) {
			if made, err = s.js.CreateOrUpdateStream(ctx, want); err != nil {
				return fmt.Errorf("stream %s: %w", c.name, err)
			}
		}
		if at := made.CachedInfo().Created; at.After(s.born) {
			s.born = at
		}
	}
	return nil
}

// settled says whether a stream is as it is wanted. To tell the server so once more
// has it read a block of 8 MB, which it keeps for a while.
func settled(is, want jetstream.StreamConfig) bool {
	return slices.Equal(is.Subjects, want.Subjects) && is.MaxAge == want.MaxAge && is.MaxBytes == want.MaxBytes &&
		is.Discard == want.Discard && is.Duplicates == want.Duplicates && is.Storage == want.Storage &&
		is.Replicas == want.Replicas && is.MaxMsgSize == want.MaxMsgSize && is.Metadata[splitMark] == want.Metadata[splitMark]
}

// publish sends a row, again and again until JetStream acknowledges it or the
// bus stops.
func (s *Stream) publish(ctx context.Context, row sqldb.Row, entry event.Entry, done func()) {
	msg := &nats.Msg{Subject: entry.Subject, Data: row.Body, Header: nats.Header{
		nats.MsgIdHdr: {string(row.Event.ID)}, fromHeader: {s.cfg.Process},
	}}
	if entry.Keep == event.KeepNothing {
		if err := s.conn.PublishMsg(msg); err != nil {
			s.cfg.Log.Debug("event not published", "event", row.Event.ID, "error", err)
		}
		done()
		return
	}
	if limit := min(s.conn.MaxPayload(), maxPayload) - headerRoom; int64(len(row.Body)) > limit {
		// It would never be taken, and hold up all that come after it.
		s.cfg.Log.Error("an event is larger than the bus takes, and is not published: raise max_payload of the NATS server", "event", row.Event.ID, "bytes", len(row.Body), "most", limit)
		done()
		return
	}
	for wait := 50 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, 5*time.Second) {
		future, err := s.js.PublishMsgAsync(msg, jetstream.WithStallWait(ackTime))
		if err == nil {
			select {
			case s.unacked <- unacked{future, row, entry, done}:
			case <-ctx.Done():
			}
			return
		}
		s.cfg.Log.Warn("bus does not take events", "error", err)
		pause(ctx, wait)
	}
}

// unacked is a publish that JetStream has not acknowledged.
type unacked struct {
	future jetstream.PubAckFuture
	row    sqldb.Row
	entry  event.Entry
	done   func()
}

// await waits for the acknowledgements of publishes, which come in their order,
// until ctx ends.
func (s *Stream) await(ctx context.Context) {
	for {
		select {
		case u := <-s.unacked:
			select {
			case <-u.future.Ok():
				u.done()
			case err := <-u.future.Err():
				go s.again(ctx, u, err)
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// again repeats a publish that failed.
func (s *Stream) again(ctx context.Context, u unacked, err error) {
	if ctx.Err() != nil {
		return
	}
	s.cfg.Log.Warn("event will be published again", "event", u.row.Event.ID, "error", err)
	if errors.Is(err, jetstream.ErrAsyncPublishTimeout) {
		if err := s.revive(); err != nil {
			s.cfg.Log.Warn("the bus does not begin anew", "error", err)
		}
	}
	if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) {
		if err := s.ensure(ctx); err != nil {
			s.cfg.Log.Warn("streams cannot be made", "error", err)
		}
	}
	pause(ctx, time.Second)
	s.publish(ctx, u.row, u.entry, u.done)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// Rooms are the names of all rooms that say or hear events.
var Rooms = []string{"orchestration", "scheduling", "worker", "execution", "telemetry", "security", "artifact", "console"}

// joined says whether all rooms are in this process: then what they say to each
// other never needs the stream.
func (s *Stream) joined() bool { return len(s.local) >= len(Rooms) }

// Close ends the connection, and the server within.
func (s *Stream) Close() {
	if s.conn != nil {
		s.conn.Close()
	}
	if s.server != nil {
		s.server.Shutdown()
		s.server.WaitForShutdown()
	}
}
