package pipelinefile

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"fragua.dev/fragua/internal/yamlwords"
)

// A stop is a fault after which nothing more can be read.
type stop struct {
	at      pos
	message string
}

func (s stop) Error() string { return s.message }

func stopf(at pos, format string, args ...any) error { return stop{at, fmt.Sprintf(format, args...)} }

// readYAML returns the file's one value.
func readYAML(src []byte) (n *node, err error) {
	// The library is fuzzed, and yet a file is not worth a crash.
	defer func() {
		if r := recover(); r != nil {
			n, err = nil, stopf(pos{1, 1}, "this is not YAML that can be read")
		}
	}()
	tokens := yamlwords.Split(string(src))
	if err := tooMuch(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntax(err)
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.DirectiveType || doc.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			return nil, stopf(at(doc.Body), "a second document begins here; a file holds one pipeline")
		}
		body = doc.Body
	}
	if body == nil {
		return nil, stopf(pos{1, 1}, "the file is empty; a pipeline begins with name: and jobs:")
	}
	r := reader{anchors: map[string]ast.Node{}, open: map[string]bool{}}
	return r.value(body, 0)
}

// tooMuch refuses what would make the parser call itself too often, or take too
// long.
func tooMuch(tokens token.Tokens) error {
	flow, line, onLine, keys := 0, 0, 0, 0
	for i, t := range tokens {
		p := pos{t.Position.Line, t.Position.Column}
		if t.Type == token.MappingValueType {
			keys++
		}
		if keys > maxKeys || i > maxWords {
			return stopf(p, "the file is too long: more than %d keys, or %d words and signs", maxKeys, maxWords)
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType, token.MappingValueType:
			if t.Position.Line != line {
				line, onLine = t.Position.Line, 0
			}
			// Within brackets many of these on a line are no nesting.
			if onLine++; flow == 0 && onLine > maxDepth {
				return stopf(p, "values lie more than %d deep in one another", maxDepth)
			}
		}
		if flow > maxDepth || p.column > 16*maxDepth && t.Type == token.SequenceEntryType {
			return stopf(p, "values lie more than %d deep in one another", maxDepth)
		}
	}
	return nil
}

// syntax makes one of ours of what the parser says.
func syntax(err error) error {
	where, message := pos{1, 1}, err.Error()
	if known, ok := errors.AsType[*yaml.SyntaxError](err); ok {
		message = known.GetMessage()
		if t := known.GetToken(); t != nil && t.Position != nil {
			where = pos{t.Position.Line, t.Position.Column}
		}
	}
	message, _, _ = strings.Cut(message, "\n")
	switch {
	case strings.Contains(message, "found character '\t'"):
		message = "a tab cannot indent YAML; use spaces"
	case strings.Contains(message, "@"), strings.Contains(message, "`"):
		message = "a value cannot begin with this character; put it in quotes"
	case strings.Contains(message, "mapping value is not allowed"):
		message = "a text that holds ': ' needs quotes around it, or | and a line of its own"
	case strings.Contains(message, "non-map value is specified"), strings.Contains(message, "value is not allowed in this context"):
		message = "this is neither key: value nor part of the value above; text below a key with | or > is indented further than that key"
	case strings.Contains(message, "could not find flow mapping end"):
		message = "this { is not closed"
	case strings.Contains(message, "sequence end token"):
		message = "this [ is not closed"
	case strings.Contains(message, "could not find end character of"):
		message = "this quote is not closed"
	default:
		message = "this is not YAML: " + message
	}
	return stop{where, message}
}

func at(n ast.Node) pos {
	t := n.GetToken()
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return at(m.Values[0].Key)
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		return at(m.Key)
	}
	if t == nil || t.Position == nil {
		return pos{1, 1}
	}
	return pos{t.Position.Line, t.Position.Column}
}

// A reader makes nodes of the parser's tree, following aliases.
type reader struct {
	anchors map[string]ast.Node
	open    map[string]bool // aliases that are being followed
	nodes   int
	refs    int
}

func (r *reader) value(n ast.Node, depth int) (*node, error) {
	if n == nil {
		return &node{kind: null, pos: pos{1, 1}}, nil
	}
	where := at(n)
	if r.nodes++; r.nodes > maxNodes {
		return nil, stopf(where, "more than %d values, counting what aliases repeat", maxNodes)
	}
	if depth > maxDepth {
		return nil, stopf(where, "values lie more than %d deep in one another", maxDepth)
	}
	out := &node{kind: scalar, pos: where}
	switch n := n.(type) {
	case *ast.NullNode:
		out.kind = null
	case *ast.StringNode:
		t := n.GetToken()
		out.text, out.quoted = n.Value, t.Type == token.SingleQuoteType || t.Type == token.DoubleQuoteType
	case *ast.LiteralNode:
		out.text, out.quoted = n.Value.Value, true
	case *ast.BoolNode:
		out.text, out.plain = n.GetToken().Value, aBool
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		out.text, out.plain = n.GetToken().Value, aNumber
	case *ast.MappingNode:
		out.kind = mapping
		return out, r.pairs(out, n.Values, depth)
	case *ast.MappingValueNode:
		out.kind = mapping
		return out, r.pairs(out, []*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		out.kind = sequence
		for _, v := range n.Values {
			item, err := r.value(v, depth+1)
			if err != nil {
				return nil, err
			}
			out.items = append(out.items, item)
		}
	case *ast.AnchorNode:
		name := n.Name.GetToken().Value
		r.anchors[name] = n.Value
		r.open[name] = true // a value cannot hold itself
		defer delete(r.open, name)
		return r.value(n.Value, depth+1)
	case *ast.AliasNode:
		return r.follow(n, depth)
	case *ast.TagNode:
		switch tag := n.GetToken().Value; tag {
		case "!!str":
			v, err := r.value(n.Value, depth+1)
			if err == nil && v.kind == null {
				v = &node{kind: scalar, pos: where}
			}
			if err == nil {
				v.quoted = true
			}
			return v, err
		case "!!int", "!!float", "!!bool", "!!map", "!!seq", "!!null":
			return r.value(n.Value, depth+1)
		default:
			return nil, stopf(where, "tags such as this one mean nothing here; leave it out")
		}
	default:
		return nil, stopf(where, "this kind of YAML value has no meaning in a pipeline")
	}
	if out.kind == scalar && !utf8.ValidString(out.text) {
		return nil, stopf(where, "this is not UTF-8")
	}
	return out, nil
}

func (r *reader) follow(n *ast.AliasNode, depth int) (*node, error) {
	where := at(n)
	if r.refs++; r.refs > maxRefs {
		return nil, stopf(where, "more than %d aliases", maxRefs)
	}
	name := ""
	if t := n.Value.GetToken(); t != nil {
		name = t.Value
	}
	target, ok := r.anchors[name]
	switch {
	case !ok:
		return nil, stopf(where, "no anchor of this name stands above; write &name before the value that it repeats")
	case r.open[name]:
		return nil, stopf(where, "this alias stands within the value that it repeats")
	}
	r.open[name] = true
	defer delete(r.open, name)
	return r.value(target, depth+1)
}

// pairs reads the keys of a mapping. Those that << brings in give way to those
// that stand in the mapping itself.
func (r *reader) pairs(out *node, values []*ast.MappingValueNode, depth int) error {
	var merged []pair
	for _, v := range values {
		where := at(v.Key)
		val, err := r.value(v.Value, depth+1)
		if err != nil {
			return err
		}
		if val.kind == null && val.pos == (pos{1, 1}) {
			val.pos = where
		}
		if v.Key.IsMergeKey() {
			from := []*node{val}
			if val.kind == sequence {
				from = val.items
			}
			for _, m := range from {
				if m.kind != mapping {
					return stopf(where, "<< wants a mapping, or a list of mappings: <<: *name")
				}
				for _, p := range m.pairs {
					if !has(merged, p.key) {
						merged = append(merged, p)
					}
				}
			}
			continue
		}
		key, err := r.key(v.Key, depth)
		if err != nil {
			return err
		}
		out.pairs = append(out.pairs, pair{key, where, val})
	}
	for _, p := range merged {
		if !has(out.pairs, p.key) {
			out.pairs = append(out.pairs, p)
		}
	}
	return nil
}

func has(pairs []pair, key string) bool {
	for _, p := range pairs {
		if p.key == key {
			return true
		}
	}
	return false
}

// key returns a key as written: on stays on, and 1.10 stays 1.10.
func (r *reader) key(k ast.MapKeyNode, depth int) (string, error) {
	var n ast.Node = k
	if m, ok := k.(*ast.MappingKeyNode); ok {
		n = m.Value
	}
	v, err := r.value(n, depth+1)
	if err != nil {
		return "", err
	}
	switch v.kind {
	case scalar:
		return v.text, nil
	case null:
		return k.GetToken().Value, nil
	}
	return "", stopf(at(k), "a key is a word, not %s", v.name())
}
