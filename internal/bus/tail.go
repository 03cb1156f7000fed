package bus

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"fragua.dev/fragua/contract/event"
)

const (
	tailAhead = 32 // events of each stream that are fetched before they are asked for: a reader may be slow
	tailLive  = 64 // events that no stream keeps, and that wait for a reader; more are lost to it
)

// ErrPlace is returned by Tail for a place that no tail ever gave.
var ErrPlace = errors.New("not a place in the event stream")

// Tail calls yield with each stored event whose subject matches one of subjects
// (none: all), with the place just after it, until ctx ends or yield fails. It
// goes on after the place after; an empty one means what comes from now on, 0
// all that is stored. A place of streams that were lost since means all that is stored
// of those that took their place: events may come again, and none is passed over. With follow false it ends after what is stored.
//
// Events of one subject come in order; those of different retention may overtake
// each other. Those that no stream keeps come while they happen.
func (s *Stream) Tail(ctx context.Context, subjects []string, after string, follow bool, yield func(id string, e event.Event) error) error {
	p, live, err := parsePlace(after)
	if err != nil {
		return err
	}
	for {
		err := s.tail(ctx, subjects, &p, live, follow, yield)
		if !errors.Is(err, errAnew) || ctx.Err() != nil {
			return err
		}
		live = false // it goes on where it was
	}
}

// errAnew says that the streams began anew under a tail.
var errAnew = errors.New("the streams began anew")

// tail is Tail until the streams begin anew; p is how far it has come.
func (s *Stream) tail(ctx context.Context, subjects []string, p *place, live, follow bool, yield func(id string, e event.Event) error) error {
	anew := s.beginning()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type item struct {
		stream int
		msg    jetstream.Msg
		err    error
	}
	items := make(chan item)
	last, err := s.locate(ctx, p, live)
	if err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	open, at := 0, &p.at
	var through [len(at)]bool // what is stored of a stream has been told; what comes now is too late
	for i, c := range streams {
		filters := matching(subjects, c.keep)
		if len(filters) == 0 || !follow && at[i] >= last[i] {
			continue
		}
		consumer, err := s.js.OrderedConsumer(ctx, c.name, jetstream.OrderedConsumerConfig{
			FilterSubjects: filters, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: at[i] + 1,
		})
		if err != nil {
			return fmt.Errorf("bus: %w", err)
		}
		if !follow {
			if ci, err := consumer.Info(ctx); err != nil || ci.NumPending == 0 {
				continue
			}
		}
		messages, err := consumer.Messages(jetstream.PullMaxMessages(tailAhead))
		if err != nil {
			return fmt.Errorf("bus: %w", err)
		}
		defer messages.Stop()
		open++
		go func() {
			for {
				m, err := messages.Next(jetstream.NextContext(ctx))
				select {
				case items <- item{i, m, err}:
				case <-ctx.Done():
					return
				}
				if err != nil {
					return
				}
			}
		}()
	}
	passing, stop, err := s.passing(matching(subjects, event.KeepNothing), follow)
	if err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	defer stop()
	for open > 0 || passing != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-anew:
			return errAnew
		case m := <-passing:
			e, err := event.Decode(m.Data)
			if err != nil {
				continue // not ours
			}
			if err := yield(p.String(), e); err != nil {
				return err
			}
		case it := <-items:
			if it.err != nil {
				return fmt.Errorf("bus: %w", it.err)
			}
			md, err := it.msg.Metadata()
			if err != nil {
				return fmt.Errorf("bus: %w", err)
			}
			if through[it.stream] {
				continue
			}
			at[it.stream] = md.Sequence.Stream
			if !follow && md.NumPending == 0 {
				through[it.stream] = true
				open--
			}
			e, err := event.Decode(it.msg.Data())
			if err != nil {
				continue // not ours
			}
			if err := yield(p.String(), e); err != nil {
				return err
			}
		}
	}
	return nil
}

// passing returns the events of subjects that no stream keeps, from now on; nil when
// there are none, or what happens from now on is not wanted.
func (s *Stream) passing(subjects []string, follow bool) (events chan *nats.Msg, stop func(), err error) {
	var subs []*nats.Subscription
	stop = func() {
		for _, sub := range subs {
			_ = sub.Unsubscribe() // it fails only when the connection has ended, and the subscription with it
		}
	}
	if !follow || len(subjects) == 0 {
		return nil, stop, nil
	}
	events = make(chan *nats.Msg, tailLive)
	for _, subject := range subjects {
		sub, err := s.conn.ChanSubscribe(subject, events)
		if err != nil {
			stop()
			return nil, nil, err
		}
		subs = append(subs, sub)
	}
	return events, stop, nil
}

// A place is where a tail has come to in the three streams.
type place struct {
	at [3]uint64
	of uint32 // which streams, those of these names that were made when; 0 is not known
}

// String writes p as b12-a0-t3-s1a2b3c4d.
func (p place) String() string {
	text := fmt.Sprintf("b%d-a%d-t%d", p.at[0], p.at[1], p.at[2])
	if p.of != 0 {
		text += fmt.Sprintf("-s%08x", p.of)
	}
	return text
}

func parsePlace(after string) (p place, live bool, err error) {
	switch after {
	case "":
		return p, true, nil
	case "0":
		return p, false, nil
	}
	numbers, of, known := strings.Cut(after, "-s")
	if n, err := fmt.Sscanf(numbers, "b%d-a%d-t%d", &p.at[0], &p.at[1], &p.at[2]); n != 3 || err != nil {
		return p, false, ErrPlace
	}
	if n, err := strconv.ParseUint(of, 16, 32); known && err == nil {
		p.of = uint32(n)
	}
	if p.String() != after {
		return p, false, ErrPlace
	}
	return p, false, nil
}

// locate has p be a place in the streams that there are, and returns their ends: the
// numbers of streams that were lost since say nothing about those that took their place.
func (s *Stream) locate(ctx context.Context, p *place, live bool) (last [3]uint64, err error) {
	made := crc32.NewIEEE()
	for i, c := range streams {
		stream, err := s.js.Stream(ctx, c.name)
		if err != nil {
			return last, err
		}
		info, err := stream.Info(ctx)
		if err != nil {
			return last, err
		}
		last[i] = info.State.LastSeq
		fmt.Fprintln(made, info.Created.UnixNano())
	}
	of := max(1, made.Sum32())
	lost := p.of != 0 && p.of != of
	for i := range last {
		switch {
		case live:
			p.at[i] = last[i]
		case lost || p.at[i] > last[i]:
			p.at[i] = 0
		}
	}
	p.of = of
	return last, nil
}

// matching returns the subjects of one class of retention that one of the
// patterns matches, in NATS's notation.
func matching(patterns []string, keep event.Keep) []string {
	var out []string
	for _, e := range event.Catalog() {
		if e.Keep != keep {
			continue
		}
		hit := len(patterns) == 0
		for _, p := range patterns {
			hit = hit || Matches(p, e.Subject)
		}
		if hit {
			out = append(out, e.Subject)
		}
	}
	return out
}

// Matches says whether a subject matches a pattern: * stands for one token, > at
// the end for one or more.
func Matches(pattern, subject string) bool {
	ps, ss := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, p := range ps {
		switch {
		case p == ">":
			return i == len(ps)-1 && len(ss) > i
		case i >= len(ss), p != "*" && p != ss[i]:
			return false
		}
	}
	return len(ps) == len(ss)
}
