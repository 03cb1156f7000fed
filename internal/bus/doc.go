// Package bus carries events from the rooms' outboxes to whoever listens.
//
// Two ways lead from an outbox, each with a cursor of its own. Rooms of the same
// process are handed an event in memory, straight after the commit that holds it.
// Everybody else — rooms in other processes, the event stream of the API, programs
// outside — gets it from NATS JetStream. An event leaves the outbox when every
// local room has handled it and JetStream has surely put it on its disk; until
// then a restart hands it out again. SQL is the truth; all of JetStream may be
// lost at any time, and may be slow or away without holding up the local way.
//
// What listeners may rely on: each event at least once, as long as Handle
// returns an error; events of one key usually in order, one at a time. What they
// may not: order, single copies, or that an event comes soon. Handle returns
// ErrLater when an event comes before what it needs; it comes again.
// An event that fails three times is set aside in the dead_letter table of the
// room that could not handle it, with an alert, and stops nobody.
package bus
