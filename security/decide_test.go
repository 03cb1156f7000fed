package security

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
)

// A row is an action, the scope that opens it, and what else must hold.
type row struct {
	action, scope string
	attrs, env    map[string]any
	needs         string // the attribute without which it is denied
}

var table = []row{
	{action: "Job::create", scope: "job:create", attrs: map[string]any{"owner": "o", "tags": []string{"a"}}},
	{action: "Job::read", scope: "job:read"},
	{action: "Job::cancel", scope: "job:cancel"},
	{action: "Job::retry", scope: "job:retry"},
	{action: "Job::execute", scope: "exec:run", attrs: map[string]any{"environment_permitted": true}, needs: "environment_permitted"},
	{action: "Pipeline::create", scope: "pipeline:create", attrs: map[string]any{"environment": "", "owner": "o"}},
	{action: "Pipeline::read", scope: "pipeline:read"},
	{action: "Pipeline::update", scope: "pipeline:update"},
	{action: "Pipeline::execute", scope: "pipeline:execute"},
	{action: "Worker::create", scope: "worker:create", attrs: map[string]any{"provider_id": "process", "namespace": "", "provider_authorized": true}, needs: "provider_authorized"},
	{action: "Worker::read", scope: "worker:read"},
	{action: "Worker::terminate", scope: "worker:terminate"},
	{action: "Worker::logs", scope: "worker:logs"},
	{action: "Node::read", scope: "node:read", attrs: map[string]any{"zone": "", "pool": ""}},
	{action: "Node::schedule", scope: "schedule:assign", env: map[string]any{"resources_available": true, "zone": "z", "pool": "p"}, needs: "resources_available"},
	{action: "Offer::read", scope: "node:read"},
	{action: "Offer::schedule", scope: "schedule:assign", env: map[string]any{"resources_available": true}, needs: "resources_available"},
	{action: "Artifact::upload", scope: "artifact:upload", attrs: map[string]any{"repository": "r", "checksum": "sha256:ab"}, needs: "checksum"},
	{action: "Artifact::upload", scope: "artifact:upload", attrs: map[string]any{"checksum_valid": true}, needs: "checksum_valid"},
	{action: "Artifact::upload", scope: "artifact:upload", env: map[string]any{"checksum_valid": true}, needs: "checksum_valid"},
	{action: "Artifact::read", scope: "artifact:read"},
	{action: "Artifact::promote", scope: "artifact:promote", attrs: map[string]any{"environment": "prod"}},
	{action: "Artifact::delete", scope: "artifact:delete"},
	{action: "Artifact::validate", scope: "artifact:validate"},
	{action: "Telemetry::read", scope: "telemetry:read"},
	{action: "Audit::read", scope: "audit:read"},
	{action: "Event::read", scope: "event:read"},
	{action: "Log::read", scope: "job:read"},
	{action: "Secret::read", scope: "secret:read"},
	{action: "Secret::write", scope: "secret:write"},
	{action: "Secret::delete", scope: "secret:write"},
	{action: "Token::create", scope: "token:create", attrs: map[string]any{"for_tenant": "acme"}},
	{action: "Token::read", scope: "token:create"},
	{action: "Token::revoke", scope: "token:create"},
}

func TestTableHoldsEveryAction(t *testing.T) {
	r := openRoom(t)
	for name := range r.policies.actions {
		if !slices.ContainsFunc(table, func(r row) bool { return r.action == name }) {
			t.Errorf("%s is not in the table", name)
		}
	}
}

func TestPolicies(t *testing.T) {
	r := openRoom(t)
	all := slices.Clone(r.policies.scopes)
	for _, row := range table {
		typ, _, _ := strings.Cut(row.action, "::")
		domain, _, _ := strings.Cut(row.scope, ":")
		ask := func(tenant ident.Tenant, attrs, env map[string]any, scopes ...string) authz.Answer {
			return r.Decide(t.Context(), authz.Question{
				Principal: authz.Principal{Sub: "token:1", Scopes: scopes, Tenant: tenant}, Action: row.action,
				Resource: authz.Resource{Type: typ, ID: "x", Tenant: "acme", Attrs: attrs}, Context: env,
			})
		}
		for _, s := range []string{row.scope, domain + ":*", "*"} {
			if a := ask("acme", row.attrs, row.env, s); !a.Permit || len(a.Policies) != 1 || a.Reason != "" {
				t.Errorf("%s with scope %s: %+v", row.action, s, a)
			}
			if a := ask("other", row.attrs, row.env, s); a.Permit || !strings.Contains(a.Reason, "belongs to another tenant (policy tenant)") {
				t.Errorf("%s with scope %s of a foreign tenant: %v %q", row.action, s, a.Permit, a.Reason)
			}
		}
		if a := ask("acme", row.attrs, row.env); a.Permit || a.Reason != "scope "+row.scope+" is missing" {
			t.Errorf("%s without scope: %v %q", row.action, a.Permit, a.Reason)
		}
		for _, s := range all {
			if a := ask("acme", row.attrs, row.env, s); a.Permit != (s == row.scope) {
				t.Errorf("%s with scope %s: %v", row.action, s, a.Permit)
			}
		}
		for _, s := range []string{"", "job", row.scope + " ", strings.ToUpper(row.scope), "*:*", domain + ":", row.scope + "*"} {
			if a := ask("acme", row.attrs, row.env, s); a.Permit {
				t.Errorf("%s with scope %q: permitted", row.action, s)
			}
		}
		if a := ask("", row.attrs, row.env, "*"); a.Permit || a.Reason != "nobody is signed in" {
			t.Errorf("%s by nobody: %v %q", row.action, a.Permit, a.Reason)
		}
		if row.needs == "" {
			continue
		}
		for _, without := range []map[string]any{nil, {row.needs: false}, {row.needs: ""}} {
			attrs, env := row.attrs, row.env
			if attrs[row.needs] != nil {
				attrs = without
			} else {
				env = without
			}
			if a := ask("acme", attrs, env, "*"); a.Permit || !strings.Contains(a.Reason, "checksum") && !strings.Contains(a.Reason, row.needs) {
				t.Errorf("%s with %v: %v %q", row.action, without, a.Permit, a.Reason)
			}
		}
	}
}

func TestDenyWhenUnsure(t *testing.T) {
	r := openRoom(t)
	good := authz.Question{Principal: authz.Principal{Sub: "s", Scopes: []string{"*"}, Tenant: "acme"}, Action: "Job::create",
		Resource: authz.Resource{Type: "Job", ID: "x", Tenant: "acme"}}
	if a := r.Decide(t.Context(), good); !a.Permit {
		t.Fatalf("%+v", a)
	}
	for name, c := range map[string]struct {
		change func(*authz.Question)
		reason string
	}{
		"an unknown action":          {func(q *authz.Question) { q.Action = "Job::explode" }, `no policy knows the action "Job::explode"`},
		"no action":                  {func(q *authz.Question) { q.Action = "" }, "no policy knows"},
		"an action on another kind":  {func(q *authz.Question) { q.Resource.Type = "Worker" }, `Job::create cannot be done to a "Worker"`},
		"an unknown attribute":       {func(q *authz.Question) { q.Resource.Attrs = map[string]any{"colour": "red"} }, `no attribute "colour"`},
		"the tenant as an attribute": {func(q *authz.Question) { q.Resource.Attrs = map[string]any{"tenant": "acme"} }, `no attribute "tenant"`},
		"an unknown context":         {func(q *authz.Question) { q.Context = map[string]any{"x": true} }, `no attribute "x"`},
		"text for a list":            {func(q *authz.Question) { q.Resource.Attrs = map[string]any{"tags": "a"} }, "attribute tags: want a list of texts"},
		"a number for a text":        {func(q *authz.Question) { q.Resource.Attrs = map[string]any{"owner": 1} }, "attribute owner: want a text"},
		"nothing for a text":         {func(q *authz.Question) { q.Resource.Attrs = map[string]any{"owner": nil} }, "attribute owner: want a text"},
		"a fraction":                 {func(q *authz.Question) { q.Resource.Attrs = map[string]any{"owner": math.NaN()} }, "attribute owner: want a text"},
		"an endless text":            {func(q *authz.Question) { q.Resource.Attrs = map[string]any{"owner": strings.Repeat("x", 5000)} }, "attribute owner"},
		"an endless list":            {func(q *authz.Question) { q.Resource.Attrs = map[string]any{"tags": make([]string, 300)} }, "attribute tags"},
		"endless scopes":             {func(q *authz.Question) { q.Principal.Scopes = append(make([]string, 100), "*") }, "more than 64 scopes"},
		"no subject":                 {func(q *authz.Question) { q.Principal.Sub = "" }, "nobody is signed in"},
		"a resource of nobody":       {func(q *authz.Question) { q.Resource.Tenant = "" }, "another tenant"},
	} {
		q := good
		c.change(&q)
		a := r.Decide(t.Context(), q)
		if a.Permit || !strings.Contains(a.Reason, c.reason) {
			t.Errorf("%s: %v %q", name, a.Permit, a.Reason)
		}
		if a.DecisionID == "" || a.Event.Type != "AuthorizationDenied" {
			t.Errorf("%s: no event: %+v", name, a.Event)
		}
	}
}

func TestOwnPolicies(t *testing.T) {
	q := authz.Question{Principal: authz.Principal{Sub: "s", Scopes: []string{"*"}, Tenant: "acme"}, Action: "Job::create",
		Resource: authz.Resource{Type: "Job", ID: "x", Tenant: "acme", Attrs: map[string]any{"tags": []string{"red"}}}}
	files := func(policy string) func(*Config) {
		return func(c *Config) { c.Policies = fstest.MapFS{"own.cedar": {Data: []byte(policy)}} }
	}
	for name, c := range map[string]struct {
		policy, reason string
		obligations    []string
	}{
		"a forbid of one's own": {`@id("red") @reason("red jobs are not run here") forbid (principal, action == Action::"Job::create", resource) when { resource has tags && resource.tags.contains("red") };`,
			"red jobs are not run here (policy red)", nil},
		"a policy that fails": {`@id("over") @reason("x") forbid (principal, action == Action::"Job::create", resource) when { 9223372036854775807 + 1 == 2 };`,
			"policy over failed", nil},
		"an obligation that is met":        {`@id("lim") @obligation("limit_to_tenant") permit (principal, action == Action::"Job::create", resource);`, "", []string{"limit_to_tenant"}},
		"an obligation that cannot be met": {`@id("mfa") @obligation("requires_mfa") permit (principal, action == Action::"Job::create", resource);`, "policy mfa asks for requires_mfa, which cannot be met here", nil},
		"read only, and it writes":         {`@id("ro") @obligation("read_only") permit (principal, action == Action::"Job::create", resource);`, "policy ro asks for read_only", nil},
		"of another action":                {`@id("ro") @obligation("read_only") permit (principal, action == Action::"Job::cancel", resource);`, "", nil},
	} {
		r := openRoom(t, files(c.policy))
		a := r.Decide(t.Context(), q)
		if a.Permit != (c.reason == "") || !strings.Contains(a.Reason, c.reason) || !slices.Equal(a.Obligations, c.obligations) {
			t.Errorf("%s: %v %q %v", name, a.Permit, a.Reason, a.Obligations)
		}
	}
	for name, policy := range map[string]string{
		"no Cedar":               `permit everything`,
		"no id":                  `permit (principal, action, resource);`,
		"an id twice":            `@id("tenant") permit (principal, action, resource);`,
		"a forbid that is mute":  `@id("x") forbid (principal, action, resource);`,
		"an unknown action":      `@id("x") permit (principal, action == Action::"Job::explode", resource);`,
		"an unknown attribute":   `@id("x") permit (principal, action, resource) when { resource.colour == "red" };`,
		"an attribute unchecked": `@id("x") permit (principal, action == Action::"Job::create", resource) when { resource.owner == "me" };`,
		"a wrong type":           `@id("x") permit (principal, action, resource) when { principal.tenant == 1 };`,
		"an unknown obligation":  `@id("x") @obligation("dance") permit (principal, action, resource);`,
		"an unknown annotation":  `@id("x") @oblgation("read_only") permit (principal, action, resource);`,
		"an odd scope":           `@id("x") @scope("everything") permit (principal, action, resource);`,
	} {
		cfg, _, _ := config(t.TempDir())
		files(policy)(&cfg)
		if r, err := Open(t.Context(), cfg); err == nil {
			r.Close()
			t.Errorf("%s: opened", name)
		} else if !strings.Contains(err.Error(), "own.cedar") {
			t.Errorf("%s: the fault has no place: %v", name, err)
		}
	}
}

func TestAnswerTells(t *testing.T) {
	r := openRoom(t)
	seen := map[ident.Event]bool{}
	for range 100 {
		for _, scopes := range [][]string{{"job:create"}, {"job:read"}} {
			a := r.Decide(t.Context(), authz.Question{Principal: authz.Principal{Sub: "token:1", Scopes: scopes, Tenant: "acme"}, Action: "Job::create",
				Resource: authz.Resource{Type: "Job", ID: "job_1", Tenant: "acme"}, TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Correlation: "cor"})
			e := a.Event
			if seen[e.ID] || e.Key != string(a.DecisionID) || e.Tenant != "acme" || e.CorrelationID != "cor" || e.TraceParent == "" || !e.Time.Equal(r.clock.now()) {
				t.Fatalf("%+v", e)
			}
			seen[e.ID] = true
			if a.Permit {
				g, err := event.AuthGranted.Read(e)
				if err != nil || g.DecisionID != a.DecisionID || g.Scope != "Job::create" || g.Resource != "Job::job_1" || g.Principal.Sub != "token:1" || !slices.Equal(g.Policies, []string{"job-create"}) {
					t.Fatalf("%+v, %v", g, err)
				}
				continue
			}
			d, err := event.AuthorizationDenied.Read(e)
			if err != nil || d.DecisionID != a.DecisionID || d.Action != "Job::create" || d.Resource != "Job::job_1" || d.Reason != "scope job:create is missing" {
				t.Fatalf("%+v, %v", d, err)
			}
		}
	}
	if len(seen) != 200 {
		t.Errorf("%d events", len(seen))
	}
}

func TestTokenForAnotherTenant(t *testing.T) {
	r := openRoom(t)
	for _, c := range []struct {
		tenant ident.Tenant
		scopes []string
		permit bool
	}{
		{Home, []string{"*"}, true},
		{Home, []string{"token:*"}, false},
		{Home, []string{"token:create", "job:*"}, false},
		{"acme", []string{"*"}, false}, // who may do everything within a tenant does not leave it
	} {
		a := r.Decide(t.Context(), authz.Question{Principal: authz.Principal{Sub: "s", Scopes: c.scopes, Tenant: c.tenant}, Action: "Token::create",
			Resource: authz.Resource{Type: "Token", ID: "*", Tenant: c.tenant, Attrs: map[string]any{"for_tenant": "other"}}})
		if a.Permit != c.permit {
			t.Errorf("%s %v: %v %q", c.tenant, c.scopes, a.Permit, a.Reason)
		}
	}
}

func TestDecideSurvivesAPanic(t *testing.T) {
	r := openRoom(t)
	r.policies = nil
	a := r.Decide(t.Context(), authz.Question{Principal: authz.Principal{Sub: "s", Tenant: "acme", Scopes: []string{"*"}}, Action: "Job::create"})
	if a.Permit || a.Reason != "the decision failed inside" || a.Event.ID == "" {
		t.Errorf("%+v", a)
	}
	if !strings.Contains(r.logs.String(), "a decision panicked") {
		t.Error("not logged")
	}
}

func FuzzDecide(f *testing.F) {
	r := openRoom(f)
	f.Add("Job::create", "Job", "acme", "acme", "job:create", `{"owner":"x"}`)
	f.Fuzz(func(t *testing.T, action, typ, tenant, owner, scope, attrs string) {
		q := authz.Question{Principal: authz.Principal{Sub: "s", Scopes: []string{scope}, Tenant: ident.Tenant(tenant)}, Action: action,
			Resource: authz.Resource{Type: typ, ID: "x", Tenant: ident.Tenant(owner)}}
		if json.Unmarshal([]byte(attrs), &q.Resource.Attrs) != nil {
			return
		}
		if a := r.Decide(t.Context(), q); a.Permit && (tenant != owner || tenant == "" || !covers([]string{scope}, r.policies.actions[action].rules.scopes()[0])) {
			t.Errorf("permitted: %+v", q)
		}
	})
}
