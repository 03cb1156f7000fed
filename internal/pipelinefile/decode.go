package pipelinefile

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A where is what a value is called: in the specification, whose faults are to be
// found again, and in the file.
type where struct{ spec, shown string }

func (w where) key(spec, shown string) where {
	join := func(a, b string) string {
		if a == "" {
			return b
		}
		return a + "." + b
	}
	return where{join(w.spec, spec), join(w.shown, shown)}
}

func (w where) index(i int) where {
	at := "[" + strconv.Itoa(i) + "]"
	return where{w.spec + at, w.shown + at}
}

type place struct {
	pos
	shown string
}

// A decoder makes a specification of a file's values, and notes every fault.
type decoder struct {
	faults []Fault
	places map[string]place // of what the specification holds
	doubt  map[string]bool  // mappings in which something was not understood
}

func (d *decoder) fault(at pos, w where, format string, args ...any) {
	d.faults = append(d.faults, Fault{at.line, at.column, w.shown, fmt.Sprintf(format, args...)})
}

// wrong notes that a known key has a value of another kind.
func (d *decoder) wrong(n *node, w where, want string) {
	if n.kind == null {
		d.fault(n.pos, w, "has no value; want %s", want)
	} else {
		d.fault(n.pos, w, "is %s; want %s", n.name(), want)
	}
	for p := w.spec; p != ""; p = parent(p) {
		d.doubt[p] = true
		if !strings.HasSuffix(p, "]") {
			d.doubt[parent(p)] = true
			return
		}
	}
}

// note remembers where a value of the specification stands.
func (d *decoder) note(at pos, w where) { d.places[w.spec] = place{at, w.shown} }

// parent returns the path of what holds the value at path.
func parent(path string) string {
	dot, bracket := strings.LastIndexByte(path, '.'), strings.LastIndexByte(path, '[')
	return path[:max(dot, bracket, 0)]
}

// fields calls read with each key of n that f knows.
func (d *decoder) fields(n *node, w where, f form, read func(key string, v *node, w where)) {
	if n.kind != mapping {
		d.wrong(n, w, "a mapping, which may hold "+strings.Join(f.keys, ", "))
		return
	}
	seen := map[string]pos{}
	known := map[string]bool{}
	for _, k := range f.all() {
		known[k] = true
	}
	for _, p := range n.pairs {
		at := w.key(p.key, p.key)
		if first, twice := seen[p.key]; twice {
			d.fault(p.pos, where{shown: shown(at.shown)}, "stands twice; the first is in line %d", first.line)
			continue
		}
		seen[p.key] = p.pos
		if !known[p.key] {
			d.unknown(p, w, f)
			continue
		}
		if p.val.kind == scalar {
			d.note(p.val.pos, at)
		} else {
			d.note(p.pos, at)
		}
		read(p.key, p.val, at)
	}
}

func (d *decoder) unknown(p pair, w where, f form) {
	advice, sure := f.advice(p.key)
	if sure {
		d.doubt[w.spec] = true
	}
	if advice == "" {
		advice = f.what + " may have " + strings.Join(f.keys, ", ")
	}
	d.fault(p.pos, where{shown: shown(w.key(p.key, p.key).shown)}, "unknown key; %s", advice)
}

// shown keeps a path readable whatever a key holds.
func shown(path string) string {
	if len(path) > 200 {
		path = strings.ToValidUTF8(path[:200], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, path)
}

func (d *decoder) text(n *node, w where) string {
	if n.kind != scalar {
		d.wrong(n, w, "a text")
		return ""
	}
	return n.text
}

// list returns the items of a list; a single value is a list of one if that is
// how people would write it.
func (d *decoder) list(n *node, w where, one bool, want string) []*node {
	switch {
	case n.kind == sequence:
		return n.items
	case one && n.kind == scalar:
		return []*node{n}
	}
	d.wrong(n, w, want)
	return nil
}

func (d *decoder) texts(n *node, w where, one bool, want string) []string {
	var out []string
	for i, item := range d.list(n, w, one, want) {
		at := w.index(i)
		d.note(item.pos, at)
		out = append(out, d.text(item, at))
	}
	return out
}

// whole reads a whole number that is not negative.
func (d *decoder) whole(n *node, w where) int64 {
	// A number of too many digits counts as a text in YAML.
	if n.kind != scalar || !digits(n.text) && (n.quoted || n.plain != aNumber) {
		d.wrong(n, w, "a whole number")
		return 0
	}
	if n.quoted {
		d.fault(n.pos, w, "want a number, not a text: leave the quotes out")
		return 0
	}
	if !digits(n.text) {
		d.fault(n.pos, w, "want a whole number in digits, not negative")
		return 0
	}
	v, err := strconv.ParseInt(n.text, 10, 64)
	if err != nil {
		return math.MaxInt64 // what is too large, the specification says
	}
	return v
}

func digits(s string) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

const wantDuration = "a duration, such as 90s, 5m or 1h30m"

var days = regexp.MustCompile(`^([0-9]{1,5})d$`)

// duration reads a duration, and returns it in milliseconds.
func (d *decoder) duration(n *node, w where) int64 {
	if n.kind != scalar {
		d.wrong(n, w, wantDuration)
		return 0
	}
	if digits(n.text) {
		d.fault(n.pos, w, "say the unit: 30s, 5m, 1h")
		return 0
	}
	if m := days.FindStringSubmatch(n.text); m != nil {
		v, _ := strconv.ParseInt(m[1], 10, 64) // five digits
		return v * 24 * 60 * 60 * 1000
	}
	v, err := time.ParseDuration(n.text)
	if err != nil {
		d.fault(n.pos, w, "want %s", wantDuration)
		return 0
	}
	if v < time.Millisecond {
		d.fault(n.pos, w, "want at least 1ms; without this key the default holds")
		return 0
	}
	return v.Milliseconds()
}

// milliseconds reads the API's form of a duration.
func (d *decoder) milliseconds(n *node, w where) int64 {
	before := len(d.faults)
	v := d.whole(n, w)
	if v == 0 && len(d.faults) == before {
		d.fault(n.pos, w, "want at least 1; without this key the default holds")
	}
	return v
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,254}$`)

// env reads variables. Their values are what is written, whatever YAML would
// make of it: on, 1.10 and 0x1f stay as they are.
func (d *decoder) env(n *node, w where) map[string]string {
	if n.kind != mapping {
		d.wrong(n, w, "a mapping of names to values")
		return nil
	}
	out, seen := map[string]string{}, map[string]pos{}
	for _, p := range n.pairs {
		at := w.key(p.key, p.key)
		at.shown = shown(at.shown)
		first, twice := seen[p.key]
		seen[p.key] = p.pos
		switch {
		case twice:
			d.fault(p.pos, at, "stands twice; the first is in line %d", first.line)
		case !envName.MatchString(p.key):
			d.fault(p.pos, at, "a variable's name is letters, digits and '_', not beginning with a digit")
		case p.val.kind == null:
			d.fault(p.val.pos, at, `has no value; write "" for an empty one`)
		case p.val.kind != scalar:
			d.fault(p.val.pos, at, "is %s; want a text", p.val.name())
		default:
			d.note(p.pos, at)
			out[p.key] = p.val.text
		}
	}
	return out
}
