package security

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/internal/observe"
)

// TestDecisionsAreLogged looks for the fields of the contract in the log: of
// denials always, of permits when someone wants to know.
func TestDecisionsAreLogged(t *testing.T) {
	r := openRoom(t)
	ask := func(level slog.Level, scopes ...string) (line struct{ Level, Tenant, Resource, Action, Decision, Error string }) {
		t.Helper()
		var b bytes.Buffer
		r.cfg.Log = observe.Logger(&b, level, true)
		r.Decide(t.Context(), authz.Question{
			Principal: authz.Principal{Sub: "ann", Tenant: "acme", Scopes: scopes}, Action: "Job::read",
			Resource: authz.Resource{Type: "Job", ID: "job_1", Tenant: "acme", Attrs: map[string]any{"owner": "confidential"}},
		})
		if bytes.Contains(b.Bytes(), []byte("confidential")) {
			t.Errorf("more than the fields: %s", b.Bytes())
		}
		if b.Len() > 0 {
			if err := json.Unmarshal(b.Bytes(), &line); err != nil {
				t.Fatalf("%v: %s", err, b.Bytes())
			}
		}
		return line
	}
	denied := ask(slog.LevelInfo)
	if denied.Level != "INFO" || denied.Tenant != "acme" || denied.Resource != "Job::job_1" || denied.Action != "Job::read" || denied.Decision != "deny" || denied.Error == "" {
		t.Errorf("%+v", denied)
	}
	if quiet := ask(slog.LevelInfo, "job:read"); quiet.Decision != "" {
		t.Errorf("a permit makes noise: %+v", quiet)
	}
	if permitted := ask(slog.LevelDebug, "job:read"); permitted.Level != "DEBUG" || permitted.Decision != "permit" || permitted.Tenant != "acme" {
		t.Errorf("%+v", permitted)
	}
}
