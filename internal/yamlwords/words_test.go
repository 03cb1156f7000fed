package yamlwords

import (
	"encoding/json"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"
)

// TestColons reads lists as the standard does; "" is what the library refuses.
func TestColons(t *testing.T) {
	for src, want := range map[string]string{
		`a: {c: [npm, run, build:prod]}`:     `{"a":{"c":["npm","run","build:prod"]}}`,
		`a: {c: [x:y, z:80]}`:                `{"a":{"c":["x:y","z:80"]}}`,
		`a: {c: [a:b:c, 1:2, é:b]}`:          `{"a":{"c":["a:b:c","1:2","é:b"]}}`,
		`a: {c: [http://h:80/p]}`:            `{"a":{"c":["http://h:80/p"]}}`,
		`a: {c: [{d: [q:r]}, k:v]}`:          `{"a":{"c":[{"d":["q:r"]},"k:v"]}}`,
		`a: {c: [&n x:y, *n]}`:               `{"a":{"c":["x:y","x:y"]}}`,
		`a: {c: [k: v]}`:                     `{"a":{"c":[{"k":"v"}]}}`,
		`a: {c: ["x":y]}`:                    `{"a":{"c":[{"x":"y"}]}}`,
		`a: {c: [{k: v}, "x:y", 'x: y']}`:    `{"a":{"c":[{"k":"v"},"x:y","x: y"]}}`,
		`a: [x:y, {k: v}]`:                   `{"a":["x:y",{"k":"v"}]}`,
		`a: {b: {c: [x:y]}, d: [1, 2]}`:      `{"a":{"b":{"c":["x:y"]},"d":[1,2]}}`,
		"a:\n  - {c: [x:y]}\n  - b: [p:q]\n": `{"a":[{"c":["x:y"]},{"b":["p:q"]}]}`,
	} {
		file, err := parser.Parse(Split(src), 0)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		var v any
		if err := yaml.NodeToValue(file.Docs[0].Body, &v); err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if got, err := json.Marshal(v); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v, want %s", src, got, err, want)
		}
	}
}
