package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/sqldb"
)

const (
	syncInterval = 2 * time.Second  // between fsyncs of JetStream's files
	dedupWindow  = 20 * time.Second // in which a repeated message id is dropped
	maxUnacked   = 4096             // publishes that JetStream has not acknowledged
	ackTime      = 5 * time.Second
	fromHeader   = "Fragua-From" // the process that published
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
	URL      string // of a NATS server or cluster; empty: a server within this process
	Dir      string // where the server within keeps its files
	Listen   string // HOST:PORT where the server within is open to others; empty: nowhere
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
	fresh  bool // the streams were not there: what was published is not in them
	repair sync.Mutex
	stops  []jetstream.ConsumeContext

	unacked chan unacked // in the order in which they were published
}

// OpenStream connects to JetStream, or starts it, and makes the streams.
func OpenStream(ctx context.Context, cfg StreamConfig) (*Stream, error) {
	s := &Stream{cfg: cfg, local: map[string]bool{}, unacked: make(chan unacked, maxUnacked)}
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
	if cfg.URL == "" {
		if err := s.serve(); err != nil {
			return nil, fmt.Errorf("bus: %w", err)
		}
		opts = append(opts, nats.InProcessServer(s.server))
	}
	conn, err := nats.Connect(cfg.URL, opts...)
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

// ensure makes the streams that are not there.
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
		if _, err := s.js.Stream(ctx, c.name); errors.Is(err, jetstream.ErrStreamNotFound) {
			s.fresh = true
		}
		_, err := s.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name: c.name, Subjects: subjects, MaxAge: c.maxAge, MaxBytes: c.maxBytes, Discard: jetstream.DiscardOld,
			Duplicates: dedupWindow, Storage: jetstream.FileStorage, Replicas: max(1, s.cfg.Replicas), MaxMsgSize: maxPayload,
		})
		if err != nil {
			return fmt.Errorf("stream %s: %w", c.name, err)
		}
	}
	return nil
}

// publish sends a row, again and again until JetStream acknowledges it or the
// bus stops.
func (s *Stream) publish(ctx context.Context, row sqldb.Row, entry event.Entry, done func()) {
	msg := &nats.Msg{Subject: entry.Subject, Data: row.Body, Header: nats.Header{
		nats.MsgIdHdr: {string(row.Event.ID)}, fromHeader: {s.cfg.Process},
	}}
	if entry.Keep == event.KeepNothing || len(row.Body) > maxPayload {
		if err := s.conn.PublishMsg(msg); err != nil {
			s.cfg.Log.Debug("event not published", "event", row.Event.ID, "error", err)
		}
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

// consume lets a room hear what rooms of other processes say. Each room has one
// durable consumer a stream, under its own name.
func (s *Stream) consume(ctx context.Context, b *Bus, r *room) error {
	for _, c := range streams {
		var subjects []string
		for subject := range r.handle {
			if e, _ := event.Lookup(subject); e.Keep == c.keep && !s.heardHere(e) {
				subjects = append(subjects, subject)
			}
		}
		if len(subjects) == 0 {
			continue
		}
		consumer, err := s.js.CreateOrUpdateConsumer(ctx, c.name, jetstream.ConsumerConfig{
			Durable: r.name, FilterSubjects: subjects, AckPolicy: jetstream.AckExplicitPolicy,
			AckWait: handleTime + 30*time.Second, MaxAckPending: 2000, DeliverPolicy: jetstream.DeliverAllPolicy,
		})
		if err != nil {
			return fmt.Errorf("consumer: %w", err)
		}
		run, err := consumer.Consume(func(m jetstream.Msg) { s.receive(b, r, m) }, jetstream.PullMaxMessages(500))
		if err != nil {
			return fmt.Errorf("consume: %w", err)
		}
		s.stops = append(s.stops, run)
	}
	return nil
}

// heardHere says whether every room that may say e is in this process.
func (s *Stream) heardHere(e event.Entry) bool {
	if e.Owner == "security" { // anyone says these
		return len(s.local) >= len(Rooms)
	}
	return s.local[e.Owner]
}

// Rooms are the names of all rooms that say or hear events.
var Rooms = []string{"orchestration", "scheduling", "worker", "execution", "telemetry", "security", "artifact", "console"}

func (s *Stream) receive(b *Bus, r *room, m jetstream.Msg) {
	if m.Headers().Get(fromHeader) == s.cfg.Process {
		m.Ack() // it was delivered in memory
		return
	}
	e, err := event.Decode(m.Data())
	if err != nil || e.Subject != m.Subject() {
		s.cfg.Log.Error("message is no event", "subject", m.Subject(), "error", err)
		m.Term()
		return
	}
	d := delivery{e: e, since: b.cfg.Now(), ack: func() { m.Ack() }, retry: func(wait time.Duration) { m.NakWithDelay(wait) }}
	if md, err := m.Metadata(); err == nil {
		d.since = md.Timestamp
		d.wait = min(firstLater<<min(md.NumDelivered, 8), mostLater)
		d.tries = int(md.NumDelivered) - 1
	}
	b.enqueue(r, d)
}

// Close ends the connection, and the server within.
func (s *Stream) Close() {
	for _, c := range s.stops {
		c.Stop()
	}
	if s.conn != nil {
		s.conn.Close()
	}
	if s.server != nil {
		s.server.Shutdown()
		s.server.WaitForShutdown()
	}
}

// sequence writes where a tail has come to: b12-a0-t3.
func sequence(at [3]uint64) string {
	return "b" + strconv.FormatUint(at[0], 10) + "-a" + strconv.FormatUint(at[1], 10) + "-t" + strconv.FormatUint(at[2], 10)
}
