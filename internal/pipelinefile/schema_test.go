package pipelinefile

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

//go:generate go test -run Golden -update .

// TestGoldenSchema keeps the published schema the one that the program has.
func TestGoldenSchema(t *testing.T) {
	golden(t, filepath.FromSlash("../../docs/fragua.schema.json"), Schema())
}

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(SchemaURL, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(SchemaURL)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// value reads a file as an editor's schema check would see it.
func value(t *testing.T, path string) (any, error) {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(path, ".yaml") {
		if src, err = yaml.YAMLToJSON(src); err != nil {
			return nil, err
		}
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(src))
}

// TestSchemaAgrees gives the schema what the parser takes and refuses.
func TestSchemaAgrees(t *testing.T) {
	s := compiled(t)
	examples, err := filepath.Glob("../../examples/*/fragua.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(append(files(t, "good"), examples...), "../../fragua.yaml") {
		if strings.HasSuffix(path, "scalars.yaml") {
			continue // has .nan and .inf, which JSON has not
		}
		v, err := value(t, path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		} else if err := s.Validate(v); err != nil {
			t.Errorf("%s: the parser takes it, the schema does not: %v", path, err)
		}
	}
	for _, name := range []string{"unknown.yaml", "kinds.yaml", "spec.yaml", "text.yaml", "list.yaml", "nojobs.yaml", "noname.yaml"} {
		v, err := value(t, filepath.Join("testdata/bad", name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if s.Validate(v) == nil {
			t.Errorf("%s: the parser refuses it, the schema does not", name)
		}
	}
}

// TestEveryKeyIsRead writes each key of each form, and expects to be told of its
// value, never that it is unknown.
func TestEveryKeyIsRead(t *testing.T) {
	wrap := map[string]string{
		"a pipeline": `%`, "a job": `{"name":"x","jobs":{"j":%}}`, "a step": `{"name":"x","jobs":{"j":{"steps":[%]}}}`,
		"resources": `{"name":"x","jobs":{"j":{"resources":%}}}`, "retries": `{"name":"x","jobs":{"j":{"retries":%}}}`,
		"affinity": `{"name":"x","jobs":{"j":{"affinity":%}}}`, "an artifact": `{"name":"x","jobs":{"j":{"artifacts":[%]}}}`,
		"a source": `{"name":"x","jobs":{"j":{"source":%}}}`,
	}
	for _, f := range []form{pipelineForm, jobForm, stepForm, quotaForm, retryForm, affinityForm, artifactForm, sourceForm} {
		for _, key := range f.all() {
			inner, err := json.Marshal(map[string]any{key: map[string]any{"a b": []int{}}})
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse("x.json", []byte(strings.Replace(wrap[f.what], "%", string(inner), 1)))
			if err == nil || strings.Contains(err.Error(), "."+key+": unknown key") || !strings.Contains(err.Error(), key) {
				t.Errorf("%s: %s: %v", f.what, key, err)
			}
		}
	}
}
