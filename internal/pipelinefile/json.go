package pipelinefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

// readJSON returns the file's one value. Keys that stand twice are kept twice,
// so that they can be told.
func readJSON(src []byte) (*node, error) {
	r := &jsonReader{src: src, dec: json.NewDecoder(bytes.NewReader(src))}
	r.dec.UseNumber()
	if !utf8.Valid(src) {
		return nil, stopf(pos{1, 1}, "this is not UTF-8")
	}
	n, err := r.value(0)
	if err != nil {
		return nil, err
	}
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, stopf(r.here(), "something follows the pipeline; a file holds one")
	}
	return n, nil
}

type jsonReader struct {
	src   []byte
	dec   *json.Decoder
	nodes int
	line  int // of the offset last asked for, so that no byte is counted twice
	start int // where that line begins
	seen  int
}

// here returns where the next token begins.
func (r *jsonReader) here() pos {
	i := int(r.dec.InputOffset())
	for i < len(r.src) && bytes.IndexByte([]byte(" \t\r\n,:"), r.src[i]) >= 0 {
		i++
	}
	return r.pos(i)
}

func (r *jsonReader) pos(i int) pos {
	i = min(i, len(r.src))
	if r.line == 0 || i < r.seen {
		r.line, r.start, r.seen = 1, 0, 0
	}
	for ; r.seen < i; r.seen++ {
		if r.src[r.seen] == '\n' {
			r.line, r.start = r.line+1, r.seen+1
		}
	}
	return pos{r.line, utf8.RuneCount(r.src[r.start:i]) + 1}
}

func (r *jsonReader) token() (json.Token, pos, error) {
	where := r.here()
	t, err := r.dec.Token()
	if err == nil {
		return t, where, nil
	}
	if bad, ok := errors.AsType[*json.SyntaxError](err); ok {
		return nil, where, stopf(r.pos(int(bad.Offset)-1), "this is not JSON: %s", bad.Error())
	}
	if len(bytes.TrimSpace(r.src)) == 0 {
		return nil, where, stopf(pos{1, 1}, `the file is empty; a pipeline begins with {"name": …, "jobs": {…}}`)
	}
	return nil, where, stopf(r.pos(len(r.src)), "the JSON ends before it is complete")
}

func (r *jsonReader) value(depth int) (*node, error) {
	t, where, err := r.token()
	if err != nil {
		return nil, err
	}
	return r.rest(t, where, depth)
}

// rest reads what follows the first token of a value.
func (r *jsonReader) rest(t json.Token, where pos, depth int) (*node, error) {
	if r.nodes++; r.nodes > maxNodes {
		return nil, stopf(where, "more than %d values", maxNodes)
	}
	if depth > maxDepth {
		return nil, stopf(where, "values lie more than %d deep in one another", maxDepth)
	}
	n := &node{kind: scalar, pos: where}
	switch t := t.(type) {
	case nil:
		n.kind = null
	case string:
		n.text, n.quoted = t, true
	case json.Number:
		n.text, n.plain = t.String(), aNumber
	case bool:
		n.text, n.plain = "false", aBool
		if t {
			n.text = "true"
		}
	case json.Delim:
		if t == '{' {
			return n, r.object(n, depth)
		}
		return n, r.array(n, depth)
	}
	return n, nil
}

func (r *jsonReader) object(n *node, depth int) error {
	n.kind = mapping
	for {
		t, where, err := r.token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok {
			return nil // the closing brace: the decoder lets nothing else through
		}
		val, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		n.pairs = append(n.pairs, pair{key, where, val})
	}
}

func (r *jsonReader) array(n *node, depth int) error {
	n.kind = sequence
	for {
		t, where, err := r.token()
		if err != nil {
			return err
		}
		if t == json.Delim(']') {
			return nil
		}
		item, err := r.rest(t, where, depth+1)
		if err != nil {
			return err
		}
		n.items = append(n.items, item)
	}
}
