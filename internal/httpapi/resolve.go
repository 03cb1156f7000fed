package httpapi

import (
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

// told adds what huma found. What a body means is not judged where it could not be
// read to its end, nor where the schema has found fault already.
func (p *Problem) told(errs []error) {
	var sense []Fault
	whole := p.Status == 422
	for _, err := range errs {
		switch d := err.(type) { //nolint:errorlint // neither huma nor Faults wraps them
		case nil:
		case meant:
			sense = append(sense, d.fault)
		case huma.ErrorDetailer:
			f := d.ErrorDetail()
			at, message, unread := strings.Cut(f.Message, mark)
			if !unread {
				at, message = f.Location, words(f.Message)
			}
			whole = whole && !unread && !slices.Contains(mistyped, f.Message)
			p.add(at, message)
		default:
			p.add("", err.Error())
		}
	}
	if !whole {
		return
	}
	schema := p.Errors
	for _, f := range sense {
		if !slices.ContainsFunc(schema, func(s Fault) bool { return s.Location == f.Location }) {
			p.add(f.Location, f.Message)
		}
	}
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
