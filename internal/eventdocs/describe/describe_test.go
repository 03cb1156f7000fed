package describe

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"fragua.dev/fragua/contract/event"
)

var update = flag.Bool("update", false, "write the descriptions anew")

const (
	root      = "../../.."
	schemaDir = root + "/contract/event/schema"
)

func reader(t *testing.T) *Reader {
	t.Helper()
	r, err := Read(root+"/contract/event", root+"/contract/spec")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestGolden compares the descriptions in git with what the catalog says now.
func TestGolden(t *testing.T) {
	r := reader(t)
	want := map[string][]byte{
		root + "/docs/events.md":     r.Page(),
		root + "/docs/asyncapi.yaml": r.AsyncAPI(),
		"../asyncapi.yaml":           r.AsyncAPI(),
	}
	for _, e := range event.Catalog() {
		b, err := r.Schema(e)
		if err != nil {
			t.Fatal(err)
		}
		want[filepath.Join(schemaDir, e.Type+".json")] = b
	}
	for file, b := range want {
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s is not what the catalog says (%v): go generate ./internal/eventdocs, and look at the difference", file, err)
		}
	}
	files, err := filepath.Glob(schemaDir + "/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := want[f]; !ok {
			t.Errorf("%s describes an event that there is not", f)
		}
	}
}

// contract is the blueprint's list of events, with the fields that their data has
// at least.
var contract = []struct {
	owner, subject, typ string
	delivery            event.Delivery
	data                string
}{
	{"orchestration", "ci.job.requested", "JobRequested", event.AtLeastOnce, "job_id spec correlation_id tenant_id"},
	{"orchestration", "ci.job.started", "JobStarted", event.AtLeastOnce, "job_id worker_id"},
	{"orchestration", "ci.job.completed", "JobCompleted", event.AtLeastOnce, "job_id result_ref"},
	{"orchestration", "ci.job.failed", "JobFailed", event.AtLeastOnce, "job_id error_code retryable"},
	{"orchestration", "ci.job.cancelled", "JobCancelled", event.AtLeastOnce, "job_id reason"},
	{"scheduling", "ci.offer.created", "OfferCreated", event.AtLeastOnce, "offer_id node_id resource_quota"},
	{"scheduling", "ci.assignment.created", "AssignmentCreated", event.AtLeastOnce, "assignment_id job_id node_id policy"},
	{"scheduling", "ci.assignment.rejected", "AssignmentRejected", event.AtLeastOnce, "assignment_id reason"},
	{"scheduling", "ci.node.capacity.updated", "CapacityUpdated", event.AtLeastOnce, "node_id resource_quota timestamp"},
	{"worker", "ci.worker.created", "WorkerCreated", event.AtLeastOnce, "worker_id provider_id runtime_spec"},
	{"worker", "ci.worker.terminated", "WorkerTerminated", event.AtLeastOnce, "worker_id exit_code"},
	{"worker", "ci.worker.failed", "WorkerFailed", event.AtLeastOnce, "worker_id reason"},
	{"execution", "ci.step.started", "StepStarted", event.AtLeastOnce, "step_id job_id exec_id"},
	{"execution", "ci.step.completed", "StepCompleted", event.AtLeastOnce, "step_id result_ref duration_ms"},
	{"execution", "ci.step.failed", "StepFailed", event.AtLeastOnce, "step_id error_code retryable"},
	{"telemetry", "ci.metric.emitted", "MetricEmitted", event.AtMostOnce, "metric_name value tags"},
	{"telemetry", "ci.trace.spans", "TraceSpans", event.AtLeastOnce, "trace_context spans"},
	{"telemetry", "ci.alert.raised", "AlertRaised", event.AtLeastOnce, "alert_id severity message"},
	{"security", "ci.security.auth.granted", "AuthGranted", event.ExactlyOnce, "principal scope decision_id"},
	{"security", "ci.security.auth.revoked", "AuthRevoked", event.ExactlyOnce, "principal scope decision_id"},
	{"security", "ci.security.auth.denied", "AuthorizationDenied", event.ExactlyOnce, "resource action reason"},
	{"artifact", "ci.artifact.uploaded", "ArtifactUploaded", event.AtLeastOnce, "artifact_ref checksum"},
	{"artifact", "ci.artifact.promoted", "ArtifactPromoted", event.AtLeastOnce, "artifact_ref env"},
	{"artifact", "ci.artifact.validated", "ArtifactValidated", event.AtLeastOnce, "artifact_ref status"},
}

func TestTheBlueprintsEventsAreAllThere(t *testing.T) {
	r := reader(t)
	for _, c := range contract {
		e, ok := event.Lookup(c.subject)
		if !ok || e.Type != c.typ || e.Owner != c.owner || e.Delivery != c.delivery {
			t.Errorf("%s: %+v", c.subject, e)
			continue
		}
		var schema struct {
			Required []string `json:"required"`
		}
		b, err := r.Schema(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &schema); err != nil {
			t.Fatal(err)
		}
		for f := range strings.FieldsSeq(c.data) {
			if !slices.Contains(schema.Required, f) {
				t.Errorf("%s does not always hold %s", c.typ, f)
			}
		}
	}
}

// TestSamplesAreValid holds the schemas against events that are as empty as they
// can be, and as full.
func TestSamplesAreValid(t *testing.T) {
	for _, e := range event.Catalog() {
		file, err := filepath.Abs(filepath.Join(schemaDir, e.Type+".json"))
		if err != nil {
			t.Fatal(err)
		}
		c := jsonschema.NewCompiler()
		c.AssertFormat()
		schema, err := c.Compile(file)
		if err != nil {
			t.Errorf("%s: %v", e.Type, err)
			continue
		}
		for what, v := range map[string]reflect.Value{"empty": reflect.New(e.Data).Elem(), "full": full(e.Data)} {
			body, err := json.Marshal(v.Interface())
			if err != nil {
				t.Fatal(err)
			}
			data, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if what == "empty" {
				pick(schema, data.(map[string]any))
			}
			if err := schema.Validate(data); err != nil {
				t.Errorf("%s, %s: %v\n%s", e.Type, what, err, body)
			}
			for _, name := range schema.Required {
				less := map[string]any{}
				for k, v := range data.(map[string]any) {
					if k != name {
						less[k] = v
					}
				}
				if schema.Validate(less) == nil {
					t.Errorf("%s without %s is valid", e.Type, name)
				}
			}
			if schema.Validate([]any{data}) == nil {
				t.Errorf("a list of %s is valid", e.Type)
			}
		}
	}
}

// pick gives fields that take one of a few words the first of them: no event is
// said without.
func pick(s *jsonschema.Schema, data map[string]any) {
	for name, p := range s.Properties {
		if p.Enum != nil {
			data[name] = p.Enum.Values[0]
		}
	}
}

// full returns a value in which everything is there.
func full(t reflect.Type) reflect.Value {
	v := reflect.New(t).Elem()
	switch {
	case t == timeType:
		v.Set(reflect.ValueOf(time.Date(2026, 11, 24, 10, 0, 0, 123, time.UTC)))
		return v
	case t.Kind() == reflect.String:
		v.SetString("text")
	case t.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(7)
	case v.CanFloat():
		v.SetFloat(1.5)
	case t.Kind() == reflect.Slice:
		v = reflect.Append(v, full(t.Elem()))
	case t.Kind() == reflect.Pointer:
		v = reflect.New(t.Elem())
		v.Elem().Set(full(t.Elem()))
	case t.Kind() == reflect.Map:
		v = reflect.MakeMap(t)
		v.SetMapIndex(full(t.Key()), full(t.Elem()))
	case t.Kind() == reflect.Struct:
		for f := range t.Fields() {
			w := full(f.Type)
			if enum := f.Tag.Get("enum"); enum != "" {
				first, _, _ := strings.Cut(enum, ",")
				w = reflect.ValueOf(first).Convert(f.Type)
			}
			v.FieldByIndex(f.Index).Set(w)
		}
	}
	return v
}

// TestAsyncAPI reads the description as a program would: every event has a
// channel, an operation and a message, and every reference leads somewhere.
func TestAsyncAPI(t *testing.T) {
	var doc map[string]any
	if err := yaml.Unmarshal(reader(t).AsyncAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc["asyncapi"] != "3.0.0" {
		t.Errorf("asyncapi is %v", doc["asyncapi"])
	}
	for _, e := range event.Catalog() {
		if at(doc, "channels", e.Type, "address") != e.Subject {
			t.Errorf("%s has no channel %s", e.Type, e.Subject)
		}
		if at(doc, "operations", "say"+e.Type, "action") != "send" || at(doc, "components", "messages", e.Type, "name") != e.Type {
			t.Errorf("nobody says %s", e.Type)
		}
		if at(doc, "components", "schemas", e.Data.Name(), "type") != "object" {
			t.Errorf("the data of %s has no schema", e.Type)
		}
	}
	refs := 0
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				refs++
				if at(doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...) == nil {
					t.Errorf("%s leads nowhere", ref)
				}
			}
			for _, e := range v {
				walk(e)
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(doc)
	if refs < 4*len(event.Catalog()) {
		t.Errorf("%d references", refs)
	}
}

func at(v any, path ...string) any {
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	return v
}

func TestYAML(t *testing.T) {
	want := object{
		{"plain", "a text"}, {"yes", "yes"}, {"n", 3}, {"colon: here", "a: b # no comment\n\ttab"}, {"empty", object{}}, {"none", []any{}},
		{"list", []any{"a", object{{"k", "v"}, {"l", []any{object{{"m", true}}}}}, "- x"}}, {"1.0", "1.0"}, {"quote", `"'{[`}, {"null", "null"},
	}
	var b strings.Builder
	writeYAML(&b, want, "")
	var got map[string]any
	if err := yaml.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatalf("%v in\n%s", err, &b)
	}
	a, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := want.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var again map[string]any
	if err := json.Unmarshal(raw, &again); err != nil {
		t.Fatal(err)
	}
	c, err := json.Marshal(again)
	if err != nil || !bytes.Equal(a, c) {
		t.Errorf("%v\ngot  %s\nwant %s\nin\n%s", err, a, c, &b)
	}
}
