package describe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// An object is a JSON object whose keys have an order.
type object []pair

type pair struct {
	key   string
	value any // object, []any, string, bool, int or float64
}

// set adds a key.
func (o *object) set(key string, value any) { *o = append(*o, pair{key, value}) }

// MarshalJSON writes the keys in their order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, p := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s:", text(p.key))
		v, err := marshal(p.value)
		if err != nil {
			return nil, err
		}
		b.Write(v)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// marshal writes JSON as people would: < is <.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

func text(s string) string {
	b, _ := marshal(s) // a text: it cannot fail
	return string(b)
}

// indented writes v as JSON for files.
func indented(v any) ([]byte, error) {
	raw, err := marshal(v)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// plain are texts that YAML takes for texts without quotes.
var plain = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./ -]*$`)

// words are texts that YAML, in one version or another, takes for something else.
var words = regexp.MustCompile(`^(?i:true|false|null|yes|no|on|off|y|n|nan|inf)$`)

// writeYAML writes v in block style, two spaces a level.
func writeYAML(b *strings.Builder, v any, indent string) {
	switch v := v.(type) {
	case object:
		for _, p := range v {
			fmt.Fprintf(b, "%s%s:", indent, scalar(p.key))
			nested(b, p.value, indent)
		}
	case []any:
		for _, e := range v {
			if o, ok := e.(object); ok && len(o) > 0 {
				var inner strings.Builder
				writeYAML(&inner, o, indent+"  ")
				b.WriteString(indent + "- " + strings.TrimPrefix(inner.String(), indent+"  "))
				continue
			}
			b.WriteString(indent + "- " + scalar(e) + "\n")
		}
	}
}

func nested(b *strings.Builder, v any, indent string) {
	switch t := v.(type) {
	case object:
		if len(t) > 0 {
			b.WriteString("\n")
			writeYAML(b, t, indent+"  ")
			return
		}
	case []any:
		if len(t) > 0 {
			b.WriteString("\n")
			writeYAML(b, t, indent+"  ")
			return
		}
	}
	b.WriteString(" " + scalar(v) + "\n")
}

func scalar(v any) string {
	if s, ok := v.(string); ok && plain.MatchString(s) && !words.MatchString(s) && !strings.HasSuffix(s, " ") {
		return s
	}
	b, err := marshal(v)
	if err != nil {
		panic("eventdocs: " + err.Error()) // only what this package makes comes here
	}
	return string(b)
}
