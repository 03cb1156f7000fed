package describe

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
)

// A Reader knows what the source says of types and their fields.
type Reader struct {
	says map[string]string // event.JobRequest, event.JobRequest.Attempt → its comment
}

// Read reads the comments of the packages in these folders.
func Read(folders ...string) (*Reader, error) {
	r := &Reader{says: map[string]string{}}
	for _, dir := range folders {
		sources, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			return nil, err
		}
		for _, file := range sources {
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
			if err != nil {
				return nil, fmt.Errorf("eventdocs: %w", err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if d, ok := n.(*ast.GenDecl); ok {
					r.read(f.Name.Name, d)
				}
				return true
			})
		}
	}
	return r, nil
}

func (r *Reader) read(pkg string, d *ast.GenDecl) {
	for _, s := range d.Specs {
		t, ok := s.(*ast.TypeSpec)
		if !ok {
			continue
		}
		name := pkg + "." + t.Name.Name
		r.says[name] = sentence(d.Doc.Text() + t.Doc.Text() + t.Comment.Text())
		st, ok := t.Type.(*ast.StructType)
		if !ok {
			continue
		}
		for _, f := range st.Fields.List {
			for _, n := range f.Names {
				r.says[name+"."+n.Name] = sentence(f.Doc.Text() + f.Comment.Text())
			}
		}
	}
}

func sentence(s string) string { return strings.Join(strings.Fields(s), " ") }

// A field is one thing that an object holds.
type field struct {
	name   string // in JSON
	goType reflect.Type
	always bool // there in every object
	doc    string
	tag    reflect.StructTag
}

// fields lists what a struct is in JSON.
func (r *Reader) fields(t reflect.Type) []field {
	var out []field
	for f := range t.Fields() {
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			out = append(out, r.fields(f.Type)...)
			continue
		}
		if name == "-" || !f.IsExported() {
			continue
		}
		empty := slices.Contains(strings.Split(opts, ","), "omitempty") && f.Type.Kind() != reflect.Struct
		zero := slices.Contains(strings.Split(opts, ","), "omitzero")
		doc := f.Tag.Get("doc")
		if doc == "" {
			doc = r.says[t.String()+"."+f.Name]
		}
		out = append(out, field{name, f.Type, !empty && !zero, doc, f.Tag})
	}
	return out
}

var (
	timeType = reflect.TypeFor[time.Time]()
	rawType  = reflect.TypeFor[json.RawMessage]()
)

// schemas makes JSON Schemas, and gathers what they refer to.
type schemas struct {
	*Reader
	base string // what a reference begins with
	defs map[string]object
	from map[string]reflect.Type
}

func (r *Reader) schemas(base string) *schemas {
	return &schemas{Reader: r, base: base, defs: map[string]object{}, from: map[string]reflect.Type{}}
}

// object returns the schema of a struct. What more there may be one day is
// nobody's mistake: nothing forbids it. Bounds are left out: they are for what
// people send, and what is said has passed them.
func (s *schemas) object(t reflect.Type) object {
	o := object{{"type", "object"}}
	if doc := s.says[t.String()]; doc != "" {
		o.set("description", doc)
	}
	var required []any
	props := object{}
	for _, f := range s.fields(t) {
		p := s.of(f.goType, f.always)
		if enum := f.tag.Get("enum"); enum != "" && strings.HasPrefix(t.String(), "event.") {
			var all []any
			for v := range strings.SplitSeq(enum, ",") {
				all = append(all, v)
			}
			p.set("enum", all)
		}
		if f.doc != "" && !refers(p) {
			p.set("description", f.doc)
		}
		props.set(f.name, p)
		if f.always {
			required = append(required, f.name)
		}
	}
	o.set("properties", props)
	if required != nil {
		o.set("required", required)
	}
	return o
}

func refers(o object) bool { return len(o) == 1 && o[0].key == "$ref" }

// of returns the schema of a value. Lists and maps that are always there are null
// when nothing is in them.
func (s *schemas) of(t reflect.Type, always bool) object {
	kind := func(name string) any {
		if always {
			return []any{name, "null"}
		}
		return name
	}
	switch {
	case t == timeType:
		return object{{"type", "string"}, {"format", "date-time"}}
	case t == rawType:
		return object{}
	}
	switch t.Kind() {
	case reflect.String:
		return object{{"type", "string"}}
	case reflect.Bool:
		return object{{"type", "boolean"}}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return object{{"type", "integer"}}
	case reflect.Float64:
		return object{{"type", "number"}}
	case reflect.Slice:
		return object{{"type", kind("array")}, {"items", s.of(t.Elem(), false)}}
	case reflect.Map:
		return object{{"type", kind("object")}, {"additionalProperties", s.of(t.Elem(), false)}}
	case reflect.Pointer:
		return s.of(t.Elem(), false)
	case reflect.Struct:
		return object{{"$ref", s.base + s.define(t)}}
	}
	panic("eventdocs: no schema for " + t.String()) // a kind of field that no event has had yet
}

// define makes the schema of t one that others refer to, and returns its name.
func (s *schemas) define(t reflect.Type) string {
	name := t.Name()
	if other, taken := s.from[name]; taken && other != t {
		pkg, _, _ := strings.Cut(t.String(), ".")
		name = strings.ToUpper(pkg[:1]) + pkg[1:] + name
	}
	if _, done := s.from[name]; !done {
		s.from[name] = t
		s.defs[name] = s.object(t)
	}
	return name
}
