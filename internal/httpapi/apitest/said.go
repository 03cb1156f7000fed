package apitest

import (
	"slices"
	"sync"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/sqldb"
)

// Said collects the events that a room commits, in order.
type Said struct {
	mu  sync.Mutex
	all []event.Event
}

// Hear takes what was committed: it is for the database's OnCommit.
func (s *Said) Hear(rows []sqldb.Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rows {
		s.all = append(s.all, r.Event)
	}
}

// All returns what was said until now.
func (s *Said) All() []event.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}
