package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// maxDepth is how deep objects and arrays of a body may lie in one another.
const maxDepth = 64

// format reads JSON strictly: a key that stands twice, bytes that are not UTF-8
// and anything after the value are refused, and keys match in their exact case.
// It writes as encoding/json does, but for nil slices and maps, which are empty
// rather than null, and for HTML, which is not escaped.
var format = huma.Format{Marshal: encode, Unmarshal: decode}

var writing = json.JoinOptions(jsonv1.DefaultOptionsV1(), json.FormatNilSliceAsNull(false), json.FormatNilMapAsNull(false), jsontext.EscapeForHTML(false))

func encode(w io.Writer, v any) error {
	if err := json.MarshalWrite(w, v, writing); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// A fault is what is wrong at a place of the body. huma takes errors as text:
// newProblem finds the place again by the mark between the two.
type fault struct{ at, message string }

const mark = "\x00"

func (f fault) Error() string { return f.at + mark + f.message }

var errNotJSON = fmt.Errorf("%w%w", fault{"header.content-type", "want application/json, in UTF-8"}, silent{huma.ErrUnknownContentType})

// silent is an error that is found by errors.Is and says nothing.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

func decode(data []byte, v any) error {
	if depth(data) > maxDepth {
		return fault{"body", fmt.Sprintf("objects and arrays lie more than %d deep in one another", maxDepth)}
	}
	if err := json.Unmarshal(data, v); err != nil {
		// Beside the values that are of the wrong kind, the others are judged, too.
		_ = json.Unmarshal(data, v, jsonv1.ReportErrorsWithLegacySemantics(true))
		return unreadable(data, err)
	}
	if parsed, ok := v.(*any); ok && bytes.Contains(data, []byte(`\u0000`)) {
		if at, found := nul(*parsed, "body"); found {
			return fault{at, "the character U+0000 cannot stand in a text"}
		}
	}
	return nil
}

// depth returns how deep the brackets of data lie in one another, at most
// maxDepth+1. What is not JSON may count wrongly, and is refused anyway.
func depth(data []byte) (deepest int) {
	open, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if open++; open > deepest {
				if deepest = open; deepest > maxDepth {
					return deepest
				}
			}
		case c == '}' || c == ']':
			open--
		}
	}
	return deepest
}

// nul returns the place of a text with U+0000, which PostgreSQL cannot store and
// no process can be given.
func nul(v any, at string) (string, bool) {
	switch v := v.(type) {
	case string:
		return at, strings.Contains(v, "\x00")
	case []any:
		for i, e := range v {
			if at, found := nul(e, fmt.Sprintf("%s[%d]", at, i)); found {
				return at, true
			}
		}
	case map[string]any:
		for k, e := range v {
			if strings.Contains(k, "\x00") {
				return at, true
			}
			if at, found := nul(e, at+"."+k); found {
				return at, true
			}
		}
	}
	return "", false
}

// unreadable says why data could not be read, without repeating any of it.
func unreadable(data []byte, err error) error {
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		at := place(data, syntax.JSONPointer)
		switch {
		case errors.Is(err, jsontext.ErrDuplicateName):
			return fault{at, "this key stands twice in its object"}
		case !utf8.Valid(data):
			return fault{at, "the body is not UTF-8" + position(data, syntax.ByteOffset)}
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
			return fault{at, "the JSON ends before it is complete"}
		}
		return fault{at, "this is not JSON" + position(data, syntax.ByteOffset)}
	}
	if semantic, ok := errors.AsType[*json.SemanticError](err); ok {
		return fault{place(data, semantic.JSONPointer), wanted(semantic)}
	}
	return fault{"body", "this is not what is wanted here"}
}

// position says where in data a byte stands, as an editor counts.
func position(data []byte, offset int64) string {
	before := data[:min(max(offset, 0), int64(len(data)))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Sprintf(", at line %d, column %d", line, column)
}

// place writes a JSON pointer as a location: body.spec.steps[0].run. Only what
// data says can tell an index from a key that is a number.
func place(data []byte, p jsontext.Pointer) string {
	var parsed any
	// A body that is not whole has no arrays to look into: its numbers stay keys.
	_ = json.Unmarshal(data, &parsed, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	var b strings.Builder
	b.WriteString("body")
	for token := range p.Tokens() {
		switch v := parsed.(type) {
		case []any:
			fmt.Fprintf(&b, "[%s]", token)
			i := 0
			if _, err := fmt.Sscan(token, &i); err == nil && i >= 0 && i < len(v) {
				parsed = v[i]
			}
			continue
		case map[string]any:
			parsed = v[token]
		}
		b.WriteString("." + token)
	}
	return b.String()
}

// wanted says what kind of value would be right.
func wanted(e *json.SemanticError) string {
	t := e.GoType
	if t == nil {
		return "another kind of value is wanted"
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Bool:
		return "want true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return fmt.Sprintf("want a whole number of at most %d bits, without fraction or exponent", t.Bits())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprintf("want a whole number of at most %d bits, not negative, without fraction or exponent", t.Bits())
	case reflect.Float32, reflect.Float64, reflect.Interface:
		return "want a number that is not out of all range"
	case reflect.String:
		return "want a text"
	case reflect.Slice, reflect.Array:
		return "want a list"
	case reflect.Map:
		return "want an object"
	}
	return "another kind of value is wanted"
}
