package describe

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"fragua.dev/fragua/contract/event"
)

// kept says in words how long the bus remembers an event.
var kept = map[event.Keep]string{
	event.KeepNothing: "not at all", event.KeepTraces: "a day", event.KeepBusiness: "days", event.KeepAudit: "weeks",
}

// promised says in words what is promised of an event.
var promised = map[event.Delivery]string{
	event.AtMostOnce: "at most once", event.AtLeastOnce: "at least once", event.ExactlyOnce: "exactly once in effect",
}

const envelope = "Each event is a CloudEvents 1.0 message in JSON, on the subject named here. " +
	"Its id follows from what happened: the same thing said twice has the same id. Where a room has not heard of something for long, the one that said it says it once more, with an id that ends in .r and a number: to those who know the rest of the id it is nothing new. Objects may get more fields; none is renamed or taken away."

// Schema returns the JSON Schema of an event's data.
func (r *Reader) Schema(e event.Entry) ([]byte, error) {
	s := r.schemas("#/$defs/")
	body := s.object(e.Data)
	out := object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"$id", "https://fragua.dev/schema/event/" + e.Type + ".json"},
		{"title", e.Type}, {"$comment", "data of " + e.Subject + ": " + e.Doc},
	}
	out = append(out, body...)
	if len(s.defs) > 0 {
		out.set("$defs", sorted(s.defs))
	}
	return indented(out)
}

func sorted(defs map[string]object) object {
	var out object
	for _, name := range slices.Sorted(maps.Keys(defs)) {
		out.set(name, defs[name])
	}
	return out
}

// AsyncAPI returns the description of all events in AsyncAPI 3.0.
func (r *Reader) AsyncAPI() []byte {
	s := r.schemas("#/components/schemas/")
	s.define(reflect.TypeFor[event.Event]())
	var channels, operations, messages object
	for _, e := range event.Catalog() {
		channels.set(e.Type, object{
			{"address", e.Subject}, {"title", e.Type}, {"summary", e.Doc},
			{"messages", object{{e.Type, object{{"$ref", "#/components/messages/" + e.Type}}}}},
		})
		operations.set("say"+e.Type, object{
			{"action", "send"}, {"channel", object{{"$ref", "#/channels/" + e.Type}}},
			{"summary", "Said by " + e.Owner + ": " + e.Doc},
			{"messages", []any{object{{"$ref", "#/channels/" + e.Type + "/messages/" + e.Type}}}},
			{"tags", []any{object{{"name", e.Owner}}}},
		})
		messages.set(e.Type, object{
			{"name", e.Type}, {"title", e.Type}, {"summary", e.Doc}, {"contentType", "application/cloudevents+json"},
			{"description", fmt.Sprintf("Delivered %s; kept %s.", promised[e.Delivery], kept[e.Keep])},
			{"payload", object{{"allOf", []any{
				object{{"$ref", "#/components/schemas/Event"}},
				object{{"type", "object"}, {"properties", object{
					{"type", object{{"const", e.Type}}}, {"subject", object{{"const", e.Subject}}},
					{"data", object{{"$ref", "#/components/schemas/" + s.define(e.Data)}}},
				}}},
			}}}},
			{"x-delivery", string(e.Delivery)}, {"x-retention", string(e.Keep)}, {"x-owner", e.Owner},
		})
	}
	doc := object{
		{"asyncapi", "3.0.0"},
		{"info", object{{"title", "Fragua's events"}, {"version", "1.0.0"}, {"description", envelope}}},
		{"defaultContentType", "application/cloudevents+json"},
		{"servers", object{
			{"api", object{{"host", "127.0.0.1:7070"}, {"pathname", "/events"}, {"protocol", "http"},
				{"description", "Server-sent events of the token's tenant; ?subject= filters, Last-Event-ID resumes"}}},
			{"bus", object{{"host", "127.0.0.1:4222"}, {"protocol", "nats"},
				{"description", "JetStream, where the server was started with --nats or --nats-listen; DIR/nats.address says where the latter opened it"}}},
		}},
		{"channels", channels}, {"operations", operations},
		{"components", object{{"messages", messages}, {"schemas", sorted(s.defs)}}},
	}
	var b strings.Builder
	b.WriteString("# Made from contract/event by go generate ./internal/eventdocs; do not edit.\n")
	writeYAML(&b, doc, "")
	return []byte(b.String())
}

// Page returns the description of all events for people, in Markdown.
func (r *Reader) Page() []byte {
	var b strings.Builder
	b.WriteString("# Events\n\n<!-- Made from contract/event by go generate ./internal/eventdocs; do not edit. -->\n\n")
	b.WriteString("The whole conversation of the house, in the order a submission lives it. " + envelope + "\n\n")
	b.WriteString("`GET /events` streams them, `fragua events` prints them, `/asyncapi.yaml` and `contract/event/schema/` describe them to programs. " +
		"A stream resumes after the event that `Last-Event-ID` names. Where that is of a store of events that was lost since, it begins with " +
		"all that is stored now: an event may come again, which its id tells, and none is passed over.\n\n")
	b.WriteString("| subject | type | said by | delivered | kept | when |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, e := range event.Catalog() {
		fmt.Fprintf(&b, "| `%s` | [%s](#%s) | %s | %s | %s | %s |\n", e.Subject, e.Type, strings.ToLower(e.Type), e.Owner, promised[e.Delivery], kept[e.Keep], e.Doc)
	}
	b.WriteString("\n## The envelope\n\n")
	r.table(&b, reflect.TypeFor[event.Event]())
	types := map[string]reflect.Type{}
	for _, e := range event.Catalog() {
		fmt.Fprintf(&b, "\n## %s\n\n`%s`: %s.\n\n", e.Type, e.Subject, e.Doc)
		r.table(&b, e.Data)
		r.mentioned(e.Data, types)
	}
	b.WriteString("\n# What events hold\n")
	for _, name := range slices.Sorted(maps.Keys(types)) {
		t := types[name]
		fmt.Fprintf(&b, "\n## %s\n\n", name)
		if doc := r.says[t.String()]; doc != "" {
			b.WriteString(doc + "\n\n")
		}
		r.table(&b, t)
	}
	return []byte(b.String())
}

func (r *Reader) table(b *strings.Builder, t reflect.Type) {
	b.WriteString("| field | holds | always | |\n| --- | --- | --- | --- |\n")
	for _, f := range r.fields(t) {
		always := "yes"
		if !f.always {
			always = ""
		}
		doc := f.doc
		if enum := f.tag.Get("enum"); enum != "" {
			doc = strings.TrimSpace(doc + " One of " + strings.ReplaceAll(enum, ",", ", ") + ".")
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", f.name, holds(f.goType), always, strings.ReplaceAll(doc, "|", `\|`))
	}
}

// holds says in words what a value is.
func holds(t reflect.Type) string {
	switch {
	case t == timeType:
		return "time"
	case t == rawType:
		return "the event's data"
	}
	switch t.Kind() {
	case reflect.String:
		if strings.HasPrefix(t.String(), "ident.") {
			return strings.ToLower(t.Name()) + "'s id"
		}
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "whole number"
	case reflect.Float64:
		return "number"
	case reflect.Slice:
		return "list of " + holds(t.Elem())
	case reflect.Map:
		return holds(t.Elem()) + " by name"
	case reflect.Pointer:
		return holds(t.Elem())
	}
	return fmt.Sprintf("[%s](#%s)", t.Name(), strings.ToLower(t.Name()))
}

// mentioned gathers the structs that t holds.
func (r *Reader) mentioned(t reflect.Type, out map[string]reflect.Type) {
	for _, f := range r.fields(t) {
		e := f.goType
		for e.Kind() == reflect.Slice || e.Kind() == reflect.Map || e.Kind() == reflect.Pointer {
			e = e.Elem()
		}
		if e.Kind() != reflect.Struct || e == timeType {
			continue
		}
		name := cmp.Or(e.Name(), e.String())
		if _, done := out[name]; !done {
			out[name] = e
			r.mentioned(e, out)
		}
	}
}
