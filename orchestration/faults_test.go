package orchestration

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/httpapi/apitest"
)

// TestAllFaultsAtOnce sends what the schema and the rules of a specification find
// fault with, each in its own way.
func TestAllFaultsAtOnce(t *testing.T) {
	r, err := Open(t.Context(), Config{Dir: t.TempDir(), Now: time.Now, IDs: ident.NewSource(time.Now), Log: slog.New(slog.DiscardHandler), Decider: apitest.Permit{}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	mux := http.NewServeMux()
	r.Routes(httpapi.New(mux, "test"))
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		want                     []string
	}{
		{"a job", "POST", "/jobs", `{"job_id": "..", "tags": {"": "x"}, "spec": {"command": ["make"], "timeout_ms": 0, "env": {"1BAD": "hush", "CI": "hush"},
			"secret_refs": ["no-name"], "artifacts": [{"name": "a", "path": "/abs"}]}}`, 422,
			[]string{"body.job_id", "body.spec.artifacts[0].path", "body.spec.env.1BAD", "body.spec.env.CI", "body.spec.secret_refs[0]", "body.spec.timeout_ms", "body.tags"}},
		{"a pipeline", "POST", "/pipelines", `{"spec": {"name": "p", "jobs": {
			"a": {"command": ["x"], "timeout_ms": 0, "needs": ["nobody"]}, "not a name": {"steps": []}}}}`, 422,
			[]string{"body.spec.jobs.a.needs[0]", "body.spec.jobs.a.timeout_ms", "body.spec.jobs.not a name", "body.spec.jobs.not a name.command"}},
		{"a new version, with two circles", "PUT", "/pipelines/p1", `{"spec": {"name": "p", "jobs": {
			"a": {"command": ["x"], "needs": ["b"], "retries": -1}, "b": {"command": ["x"], "needs": ["a"]}, "c": {"command": ["x"], "needs": ["c"]}}}}`, 422,
			[]string{"body.spec.jobs.a.needs", "body.spec.jobs.a.retries", "body.spec.jobs.c.needs"}},
		// What cannot be read is not judged: nobody left the command out.
		{"another type", "POST", "/jobs", `{"spec": {"command": "make", "timeout_ms": 0}}`, 422, []string{"body.spec.command", "body.spec.timeout_ms"}},
		{"another type beside what can be judged", "POST", "/jobs", `{"spec": {"image": 7, "command": [""], "env": {"CI": "hush"}, "retries": 9223372036854775808}, "job_id": ".."}`, 422,
			[]string{"body.job_id", "body.spec.command[0]", "body.spec.env.CI", "body.spec.image", "body.spec.retries"}},
		{"without the whole", "POST", "/pipelines", `{"name": "p"}`, 422, []string{"body.name", "body.spec"}},
		{"another type beside a name that begins like it", "POST", "/jobs", `{"spec": {"command": ["x"], "env": {"CI": "hush", "CIA": 7}}}`, 422,
			[]string{"body.spec.env.CI", "body.spec.env.CIA"}},
		{"a list", "POST", "/jobs", `[]`, 422, []string{"body"}},
		{"not JSON", "POST", "/jobs", `{"spec": `, 400, []string{"body.spec"}},
	} {
		q := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
		q.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, q.WithContext(authz.With(q.Context(), authz.Principal{Sub: "ann", Tenant: "acme"})))
		var p httpapi.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var got []string
		for _, f := range p.Errors {
			got = append(got, f.Location)
		}
		if w.Code != c.status || !slices.Equal(slices.Compact(got), c.want) {
			t.Errorf("%s: %d\n got %q\nwant %q\n%s", c.name, w.Code, got, c.want, w.Body)
		}
		if strings.Contains(w.Body.String(), "hush") {
			t.Errorf("%s: a value is repeated", c.name)
		}
	}
}
