package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"fragua.dev/fragua/contract/event"
)

const (
	ackWait     = maxLater + handleTime + 30*time.Second // an event waits in memory for its next try
	maxHeard    = 2000                                   // events that are handed out and not acknowledged
	beatEvery   = 2 * time.Second                        // a server that is silent for twice as long is asked again
	lookAgain   = time.Second
	consumeTime = 20 * time.Second // to find a room's place
)

// A hearing is how one room hears one stream: through a durable consumer, which
// remembers how far the room has come.
type hearing struct {
	s        *Stream
	bus      *Bus
	room     *room
	stream   string
	subjects []string
	consumer jetstream.Consumer
	run      jetstream.ConsumeContext
	doubt    chan struct{} // something is wrong with the consumer
	last     uint64        // of the stream, when this began
}

// consume lets a room hear what rooms of other processes say. It also hears, and
// drops, what those of its own process say: so its place in the stream stays true
// when the next start deals the rooms out otherwise. Where all rooms are in this
// process, it only catches up on what they have not heard from former ones.
func (s *Stream) consume(ctx context.Context, b *Bus, r *room) error {
	for _, c := range streams {
		h := &hearing{s: s, bus: b, room: r, stream: c.name, doubt: make(chan struct{}, 1)}
		for subject := range r.handle {
			if e, _ := event.Lookup(subject); e.Keep == c.keep {
				h.subjects = append(h.subjects, subject)
			}
		}
		if len(h.subjects) == 0 {
			continue
		}
		slices.Sort(h.subjects)
		if err := h.open(ctx); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if h.run != nil {
			b.wg.Go(h.watch)
		}
	}
	return nil
}

// open begins where the room's last consumer had come to. What that one had handed
// out to a process that is gone would come again only after ackWait; so each start
// has a consumer of its own, and ends those before it.
func (h *hearing) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, consumeTime)
	defer cancel()
	stream, err := h.s.js.Stream(ctx, h.stream)
	if err != nil {
		return err
	}
	info := stream.CachedInfo()
	h.last = info.State.LastSeq
	name := h.room.name + "-" + h.s.cfg.Process
	var former []string
	var floor uint64
	all := stream.ListConsumers(ctx)
	for c := range all.Info() {
		if strings.HasPrefix(c.Name, h.room.name+"-") && c.Name != name {
			former, floor = append(former, c.Name), max(floor, c.AckFloor.Stream)
		}
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("consumers: %w", err)
	}
	if h.s.joined() && len(former) == 0 {
		return nil
	}
	cfg := jetstream.ConsumerConfig{
		Durable: name, FilterSubjects: h.subjects, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxAckPending: maxHeard,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: floor + 1,
	}
	if len(former) == 0 {
		since, err := time.Parse(time.RFC3339Nano, info.Config.Metadata[splitMark])
		if err != nil {
			return fmt.Errorf("since when the rooms are split: %w", err)
		}
		cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, 0, &since
	}
	if h.consumer, err = stream.CreateOrUpdateConsumer(ctx, cfg); err != nil {
		return fmt.Errorf("consumer: %w", err)
	}
	for _, f := range former {
		if err := stream.DeleteConsumer(ctx, f); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return fmt.Errorf("consumer: %w", err)
		}
	}
	h.run, err = h.consumer.Consume(h.receive, jetstream.PullMaxMessages(500), jetstream.PullHeartbeat(beatEvery),
		jetstream.ConsumeErrHandler(func(jetstream.ConsumeContext, error) {
			select {
			case h.doubt <- struct{}{}:
			default:
			}
		}))
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	return nil
}

func (h *hearing) receive(m jetstream.Msg) {
	if m.Headers().Get(fromHeader) == h.s.cfg.Process {
		m.Ack() // it was delivered in memory
		return
	}
	e, err := event.Decode(m.Data())
	if err != nil || e.Subject != m.Subject() {
		h.s.cfg.Log.Error("message is no event", "subject", m.Subject(), "error", err)
		m.Term()
		return
	}
	h.bus.deliver(h.room, delivery{e: e, ack: func() { m.Ack() }})
}

// watch keeps the room hearing until the bus stops: a bus whose store was lost gets
// new consumers. Where all rooms are here, it ends when the room has caught up.
func (h *hearing) watch() {
	ctx := h.bus.ctx
	defer func() { h.run.Stop() }()
	var look <-chan time.Time
	if h.s.joined() {
		t := time.NewTicker(lookAgain)
		defer t.Stop()
		look = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.doubt:
			pause(ctx, lookAgain)
		case <-h.run.Closed():
			pause(ctx, lookAgain)
		case <-look:
		}
		done, err := h.check(ctx)
		if done || ctx.Err() != nil {
			return
		}
		if err != nil {
			h.s.cfg.Log.Warn("a room does not hear the bus", "room", h.room.name, "stream", h.stream, "error", err)
			select {
			case h.doubt <- struct{}{}:
			default:
			}
		}
	}
}

// check makes a consumer that has gone anew, and says whether there is nothing left
// to hear.
func (h *hearing) check(ctx context.Context) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, consumeTime)
	defer cancel()
	info, err := h.consumer.Info(ctx)
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		h.run.Stop()
		if h.s.joined() {
			return true, nil
		}
		if err := h.s.ensure(ctx); err != nil {
			return false, err
		}
		return false, h.open(ctx)
	}
	if err != nil || !h.s.joined() {
		return false, err
	}
	if info.AckFloor.Stream < h.last && info.NumPending+uint64(info.NumAckPending) > 0 {
		return false, nil
	}
	h.run.Stop()
	stream, err := h.s.js.Stream(ctx, h.stream)
	if err == nil {
		err = stream.DeleteConsumer(ctx, h.consumer.CachedInfo().Name)
	}
	return err == nil, err
}
