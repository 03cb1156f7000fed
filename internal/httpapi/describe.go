package httpapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.html
var docsHTML string

//go:embed docs.css
var docsCSS []byte

// describe serves the description of the API. It is made once, when first asked
// for: all operations have been registered by then.
func describe(mux *http.ServeMux, spec *huma.OpenAPI) {
	serve := func(path, contentType string, make func() ([]byte, error)) {
		once := sync.OnceValues(make)
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			b, err := once()
			if err != nil {
				unforeseen(r.Context(), fmt.Errorf("describe the API: %w", err)).write(w)
				return
			}
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("Cache-Control", "no-cache")
			if strings.HasPrefix(path, "/docs") {
				w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
			}
			_, _ = w.Write(b) // a client that has gone is told nothing
		})
	}
	serve("/openapi.json", "application/openapi+json", func() ([]byte, error) { return json.MarshalIndent(spec, "", "  ") })
	serve("/openapi.yaml", "application/openapi+yaml", spec.YAML)
	serve("/docs", "text/html; charset=utf-8", func() ([]byte, error) { return page(spec) })
	serve("/docs/docs.css", "text/css; charset=utf-8", func() ([]byte, error) { return docsCSS, nil })
}

type docs struct {
	Title, Version, Description string
	Groups                      []*docsGroup
	Schemas                     []docsSchema
}

type docsGroup struct {
	Name       string
	Operations []docsOperation
}

type docsOperation struct {
	ID, Method, Path, Summary, Description string
	Params                                 []docsField
	Body                                   *huma.Schema
	Answers                                []docsAnswer
}

type docsField struct {
	Name, In, Type, Doc string
	Required            bool
}

type docsAnswer struct {
	Status, Doc, Type, Ref string
}

type docsSchema struct {
	Name   string
	Fields []docsField
}

// page writes the description for people, without scripts and without hosts but
// this one.
func page(spec *huma.OpenAPI) ([]byte, error) {
	d := docs{Title: spec.Info.Title, Version: spec.Info.Version, Description: spec.Info.Description}
	groups := map[string]*docsGroup{}
	paths := make([]string, 0, len(spec.Paths))
	for p := range spec.Paths {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range paths {
		item := spec.Paths[p]
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op == nil {
				continue
			}
			name := "other"
			if len(op.Tags) > 0 {
				name = op.Tags[0]
			}
			g := groups[name]
			if g == nil {
				g = &docsGroup{Name: name}
				groups[name] = g
				d.Groups = append(d.Groups, g)
			}
			g.Operations = append(g.Operations, operation(p, op))
		}
	}
	slices.SortFunc(d.Groups, func(a, b *docsGroup) int { return strings.Compare(a.Name, b.Name) })
	schemas := spec.Components.Schemas.Map()
	names := make([]string, 0, len(schemas))
	for n := range schemas {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		d.Schemas = append(d.Schemas, docsSchema{n, fields(schemas[n])})
	}
	t, err := template.New("docs").Funcs(template.FuncMap{"type": typeOf, "fields": fields, "ref": refOf}).Parse(docsHTML)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, d)
	return b.Bytes(), err
}

func operation(path string, op *huma.Operation) docsOperation {
	o := docsOperation{ID: op.OperationID, Method: op.Method, Path: path, Summary: op.Summary, Description: op.Description}
	for _, p := range op.Parameters {
		doc := p.Description
		if doc == "" && p.Schema != nil {
			doc = p.Schema.Description
		}
		o.Params = append(o.Params, docsField{Name: p.Name, In: p.In, Type: typeOf(p.Schema), Doc: doc, Required: p.Required})
	}
	if op.RequestBody != nil {
		for _, m := range op.RequestBody.Content {
			o.Body = m.Schema
		}
	}
	for status, r := range op.Responses {
		a := docsAnswer{Status: status, Doc: r.Description}
		for _, m := range r.Content {
			a.Type, a.Ref = typeOf(m.Schema), refOf(m.Schema)
		}
		o.Answers = append(o.Answers, a)
	}
	slices.SortFunc(o.Answers, func(a, b docsAnswer) int { return strings.Compare(a.Status, b.Status) })
	return o
}

// fields lists the properties of an object.
func fields(s *huma.Schema) []docsField {
	if s == nil {
		return nil
	}
	var out []docsField
	for name, p := range s.Properties {
		out = append(out, docsField{Name: name, Type: typeOf(p), Doc: p.Description, Required: slices.Contains(s.Required, name)})
	}
	slices.SortFunc(out, func(a, b docsField) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// refOf returns the name of the schema that s, or each of its items, refers to.
func refOf(s *huma.Schema) string {
	for s != nil && s.Ref == "" && s.Items != nil {
		s = s.Items
	}
	if s == nil {
		return ""
	}
	return strings.TrimPrefix(s.Ref, "#/components/schemas/")
}

// typeOf says in a word what a value is.
func typeOf(s *huma.Schema) string {
	switch {
	case s == nil:
		return ""
	case s.Ref != "":
		return refOf(s)
	case s.Type == huma.TypeArray:
		return "list of " + typeOf(s.Items)
	case len(s.Enum) > 0:
		words := make([]string, len(s.Enum))
		for i, e := range s.Enum {
			words[i] = fmt.Sprint(e)
		}
		return strings.Join(words, " | ")
	case s.Format != "":
		return s.Type + " (" + s.Format + ")"
	}
	return s.Type
}
