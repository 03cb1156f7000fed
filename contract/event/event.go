// Package event is the corridor between the rooms: every fact that one of them
// may tell another, each with its subject, its owner and its Go type. The whole
// conversation stands in catalog.go; the types of what is said in data.go.
package event

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"fragua.dev/fragua/contract/ident"
)

// An Event is a fact that has happened: a CloudEvents 1.0 message in JSON.
//
// Its ID is derived from what happened, not from when it was said: saying the
// same thing twice makes the same event, which the bus and each listener drop.
type Event struct {
	SpecVersion     string          `json:"specversion"` // always 1.0
	ID              ident.Event     `json:"id"`          // also Nats-Msg-Id
	Source          string          `json:"source"`      // the room: /fragua/scheduling
	Type            string          `json:"type"`        // as the catalog names it: JobRequested
	Subject         string          `json:"subject"`     // the subject on the bus: ci.job.requested
	Time            time.Time       `json:"time"`
	DataContentType string          `json:"datacontenttype"`
	CorrelationID   string          `json:"correlation_id"`
	Tenant          ident.Tenant    `json:"tenant_id"`
	TraceParent     string          `json:"traceparent,omitempty"` // W3C Trace Context
	Data            json.RawMessage `json:"data"`

	// Key tells what belongs together: events of one key reach each room of the house one
	// after the other. It is a job's id wherever there is one. It does not order them for
	// others: those of one room that are kept alike come as it said them, unless some are
	// sent again, and those of several rooms may overtake each other.
	Key string `json:"partitionkey,omitempty"`

	// said is Data before it was written, in the process that said it: whoever
	// reads it there shares it, and changes nothing of it.
	said any
}

// Delivery says what the platform promises of an event.
type Delivery string

// The promises, as the blueprint's table 15 names them.
const (
	AtMostOnce  Delivery = "at_most_once"  // nothing is stored
	AtLeastOnce Delivery = "at_least_once" // until every listener has it
	ExactlyOnce Delivery = "exactly_once"  // its effect, by deduplication
)

// Keep says how long the bus remembers an event.
type Keep string

// The retention classes of the blueprint's table 7.
const (
	KeepNothing  Keep = "nothing"  // metrics
	KeepTraces   Keep = "traces"   // short
	KeepBusiness Keep = "business" // days
	KeepAudit    Keep = "audit"    // weeks
)

// An Entry is one row of the catalog.
type Entry struct {
	Subject  string
	Type     string
	Owner    string // the only room that may say it; anyone may say security's
	Delivery Delivery
	Keep     Keep
	Doc      string
	Data     reflect.Type
}

// A Kind binds a row of the catalog to the Go type T of its data.
type Kind[T any] struct{ Entry }

var (
	entries   []Entry
	bySubject = map[string]Entry{}
)

// Catalog returns all rows, in the order they are declared.
func Catalog() []Entry { return entries }

// Lookup returns the row of a subject.
func Lookup(subject string) (Entry, bool) {
	e, ok := bySubject[subject]
	return e, ok
}

func define[T any](subject, typ, owner string, d Delivery, k Keep, doc string) Kind[T] {
	e := Entry{subject, typ, owner, d, k, doc, reflect.TypeFor[T]()}
	if _, twice := bySubject[subject]; twice {
		panic("event: " + subject + " is declared twice")
	}
	entries = append(entries, e)
	bySubject[subject] = e
	return Kind[T]{e}
}

// About is what an event is about, besides its data. One without a correlation or a
// trace gets its own.
type About struct {
	Tenant      ident.Tenant
	Key         string // orders delivery, and with Twist makes the id
	Twist       string // tells events of one kind and key apart: an attempt, a step
	Correlation string
	TraceParent string
	At          time.Time
}

// Event returns the fact that data happened. Its id follows from the kind, the
// tenant, the key and the twist.
func (k Kind[T]) Event(a About, data T) Event {
	raw := encode(data)
	id := k.Type + ":" + string(a.Tenant) + ":" + a.Key
	if a.Twist != "" {
		id += ":" + a.Twist
	}
	why := Cause{a.Correlation, a.TraceParent}.or(ident.Event(id))
	return Event{
		SpecVersion: "1.0", ID: ident.Event(id), Source: "/fragua/" + k.Owner, Type: k.Type,
		Subject: k.Subject, Time: a.At.UTC(), DataContentType: "application/json",
		CorrelationID: why.Correlation, Tenant: a.Tenant, TraceParent: why.TraceParent, Key: a.Key, Data: raw, said: data,
	}
}

// Read returns the data of e, which must be of kind k. It may be shared: nothing of
// it is to be changed.
func (k Kind[T]) Read(e Event) (data T, err error) {
	if e.Subject != k.Subject {
		return data, fmt.Errorf("event %s: is %s, want %s", e.ID, e.Subject, k.Subject)
	}
	if data, ok := e.said.(T); ok {
		return data, nil
	}
	if err := json.Unmarshal(e.Data, &data); err != nil {
		return data, fmt.Errorf("event %s: %w", e.ID, err)
	}
	return data, nil
}

// Decode reads an event from JSON.
func Decode(b []byte) (e Event, err error) {
	if err := json.Unmarshal(b, &e); err != nil {
		return e, fmt.Errorf("event: %w", err)
	}
	if e.ID == "" || e.Subject == "" {
		return e, fmt.Errorf("event: no id or subject")
	}
	return e, nil
}
