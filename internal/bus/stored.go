package bus

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"fragua.dev/fragua/contract/ident"
)

// stored returns the names of the events that the streams have of these subjects, of
// those that were published from a time on.
func (s *Stream) stored(ctx context.Context, subjects []string, from time.Time) (map[ident.Event]bool, error) {
	have := map[ident.Event]bool{}
	for _, c := range streams {
		filters := slices.DeleteFunc(matching(nil, c.keep), func(subject string) bool { return !slices.Contains(subjects, subject) })
		if len(filters) == 0 {
			continue
		}
		if err := s.names(ctx, c.name, filters, from, have); err != nil {
			return nil, fmt.Errorf("what %s has: %w", c.name, err)
		}
	}
	return have, nil
}

// names adds the names that one stream has.
func (s *Stream) names(ctx context.Context, stream string, filters []string, from time.Time, have map[ident.Event]bool) error {
	consumer, err := s.js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{
		FilterSubjects: filters, DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &from, HeadersOnly: true,
	})
	if err != nil {
		return err
	}
	info, err := consumer.Info(ctx)
	if err != nil || info.NumPending == 0 {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(1000))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		have[ident.Event(m.Headers().Get(nats.MsgIdHdr))] = true
		md, err := m.Metadata()
		if err != nil {
			return err
		}
		if md.NumPending == 0 {
			return nil
		}
	}
}
