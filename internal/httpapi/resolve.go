package httpapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"fragua.dev/fragua/contract/spec"
)

// Faults is [Invalid] for a body's Resolve method, which huma calls also when the
// schema has found something: both are told in one answer.
func Faults(at string, faults []spec.Fault) []error {
	out := make([]error, len(faults))
	for i, f := range faults {
		out[i] = meant{Fault{within(at, f.Path), f.Message}}
	}
	return out
}

// A meant is a fault in what a body says, not in how.
type meant struct{ fault Fault }

func (m meant) Error() string { return m.fault.Message }

// mistyped are the words of the schema for values that a body cannot be read with.
var mistyped = []string{
	validation.MsgExpectedBoolean, validation.MsgExpectedNumber, validation.MsgExpectedInteger,
	validation.MsgExpectedString, validation.MsgExpectedArray, validation.MsgExpectedObject,
}

// told adds what huma found. What a body means is not judged where the schema has found
// fault already, nor where it depends on a value that could not be read.
func (p *Problem) told(errs []error) {
	var sense []Fault
	var unread, missing []string // where
	for _, err := range errs {
		switch d := err.(type) { //nolint:errorlint // neither huma nor Faults wraps them
		case nil:
		case meant:
			sense = append(sense, d.fault)
		case huma.ErrorDetailer:
			f := d.ErrorDetail()
			at, message, ours := strings.Cut(f.Message, mark)
			if !ours {
				at, message = f.Location, words(f.Message)
			}
			if name, is := required(f.Message); is {
				at, message = within(at, name), "is missing"
				missing = append(missing, at)
			}
			if ours || slices.Contains(mistyped, f.Message) {
				unread = append(unread, at)
			}
			p.add(at, message)
		default:
			p.add("", err.Error())
		}
	}
	if p.Status != http.StatusUnprocessableEntity {
		return // it is no JSON
	}
	schema, absent := p.Errors, slices.Concat(missing, unread)
	for _, f := range sense {
		said := slices.ContainsFunc(schema, func(s Fault) bool { return s.Location == f.Location })
		above := slices.ContainsFunc(unread, func(at string) bool { return inside(f.Location, at) })
		below := slices.ContainsFunc(absent, func(at string) bool { return inside(at, f.Location) })
		if !said && !above && !below {
			p.add(f.Location, f.Message)
		}
	}
}

// required returns the name of a property that a body lacks, from huma's words for it.
func required(message string) (name string, is bool) {
	rest, is := strings.CutPrefix(message, "expected required property ")
	return strings.TrimSuffix(rest, " to be present"), is
}

// inside says whether a place is where at is, or within it.
func inside(at, place string) bool {
	rest, is := strings.CutPrefix(place, at)
	return is && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// within joins where a specification stands and where in it something is.
func within(at, path string) string {
	switch {
	case path == "":
		return at
	case strings.HasPrefix(path, "["):
		return at + path
	}
	return at + "." + path
}
