package security

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/observe"
)

// Bounds of a question.
const (
	maxAttrBytes = 4096
	maxAttrItems = 256
	maxScopes    = 64
)

// Decide answers a question. It never fails: whatever goes wrong is a denial, and
// its reason says what would have to be otherwise.
func (r *Room) Decide(ctx context.Context, q authz.Question) (a authz.Answer) {
	id := ident.Decision(r.cfg.IDs("dec"))
	if observe.TraceParent(ctx) == "" {
		ctx = observe.FromTraceParent(ctx, q.TraceParent)
	}
	_, end := observe.Authorize(ctx, q.Principal.Tenant, q.Principal.Sub, q.Resource.Type+"::"+q.Resource.ID, q.Action)
	defer func() {
		end(nil)
	}()
	defer func() {
		if p := recover(); p != nil {
			r.cfg.Log.Error("a decision panicked", "action", q.Action, "panic", p)
			a = authz.Answer{Reason: "the decision failed inside"}
		}
		a.DecisionID = id
		a.Event = authz.Said(q, a, r.cfg.Now())
		r.record(ctx, q, a)
	}()
	return r.policies.decide(q)
}

// record writes a decision into the log: what is denied, someone will ask about.
func (r *Room) record(ctx context.Context, q authz.Question, a authz.Answer) {
	level := slog.LevelInfo
	if a.Permit {
		level = slog.LevelDebug
	}
	if !r.cfg.Log.Enabled(ctx, level) {
		return
	}
	fields := []slog.Attr{
		slog.String(observe.FieldTenant, string(q.Principal.Tenant)), slog.String("principal", q.Principal.Sub),
		observe.Decided(q.Resource.Type+"::"+q.Resource.ID, q.Action, a.Permit), slog.String("decision_id", string(a.DecisionID)),
	}
	if !a.Permit {
		fields = append(fields, slog.String(observe.FieldError, a.Reason))
	}
	r.cfg.Log.LogAttrs(ctx, level, "decided", fields...)
}

func deny(format string, args ...any) authz.Answer {
	return authz.Answer{Reason: fmt.Sprintf(format, args...)}
}

func (p *policies) decide(q authz.Question) authz.Answer {
	act := p.actions[q.Action]
	if act == nil {
		return deny("no policy knows the action %.64q", q.Action)
	}
	if q.Principal.Sub == "" || q.Principal.Tenant == "" {
		return deny("nobody is signed in")
	}
	declared, ok := act.resources[q.Resource.Type]
	if !ok {
		return deny("%s cannot be done to a %.64q", q.Action, q.Resource.Type)
	}
	attrs, err := record(q.Resource.Attrs, declared, q.Resource.Tenant)
	if err != nil {
		return deny("the %s asked about: %v", q.Resource.Type, err)
	}
	env, err := record(q.Context, act.context, "")
	if err != nil {
		return deny("what was asked with %s: %v", q.Action, err)
	}
	if len(q.Principal.Scopes) > maxScopes {
		return deny("more than %d scopes", maxScopes)
	}
	things := pair{
		who:  cedar.Entity{UID: cedar.EntityUID{Type: "User", ID: types.String(q.Principal.Sub)}, Attributes: who(q.Principal)},
		what: cedar.Entity{UID: cedar.EntityUID{Type: types.EntityType(q.Resource.Type), ID: types.String(q.Resource.ID)}, Attributes: attrs},
	}
	decision, diag := cedar.Authorize(act.rules, &things, cedar.Request{Principal: things.who.UID, Action: act.uid, Resource: things.what.UID, Context: env})
	return act.answer(q, decision, diag)
}

// answer makes of what Cedar found what the house is told.
func (act *action) answer(q authz.Question, decision cedar.Decision, diag cedar.Diagnostic) authz.Answer {
	if len(diag.Errors) > 0 { // Cedar passes over a policy that fails: a forbid would forbid nothing
		return deny("policy %s failed", diag.Errors[0].PolicyID)
	}
	a := authz.Answer{Permit: decision == cedar.Allow, Policies: make([]string, 0, len(diag.Reasons))}
	for _, reason := range diag.Reasons {
		a.Policies = append(a.Policies, string(reason.PolicyID))
		r := act.rules.find(reason.PolicyID)
		switch {
		case a.Permit && r.obligation != "":
			if !obligations[r.obligation](q.Action) {
				return authz.Answer{Reason: fmt.Sprintf("policy %s asks for %s, which cannot be met here", r.id, r.obligation), Policies: []string{string(r.id)}}
			}
			if !slices.Contains(a.Obligations, r.obligation) {
				a.Obligations = append(a.Obligations, r.obligation)
			}
		case !a.Permit:
			a.Reason = join(a.Reason, fmt.Sprintf("%s (policy %s)", r.reason, r.id))
		}
	}
	if !a.Permit {
		// what is missing is told beside what forbids: people mend both at once
		if missing := act.missing(q.Principal.Scopes); missing != "" {
			a.Reason = join(missing, a.Reason)
		}
		a.Reason = cmp.Or(a.Reason, "no policy permits it")
	}
	return a
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// missing says which scope would open the action, if none of scopes does.
func (act *action) missing(scopes []string) string {
	open := act.rules.scopes()
	for _, s := range open {
		if covers(scopes, s) {
			return ""
		}
	}
	if len(open) == 0 {
		return ""
	}
	return "scope " + strings.Join(open, " or ") + " is missing"
}

// pair is all that a policy can look at.
type pair struct{ who, what cedar.Entity }

// Get returns the principal or the resource.
func (p *pair) Get(uid cedar.EntityUID) (cedar.Entity, bool) {
	switch uid {
	case p.who.UID:
		return p.who, true
	case p.what.UID:
		return p.what, true
	}
	return cedar.Entity{}, false
}

func who(p authz.Principal) cedar.Record {
	return cedar.NewRecord(cedar.RecordMap{"tenant": types.String(p.Tenant), "scopes": set(p.Scopes)})
}

func set(texts []string) cedar.Set {
	values := make([]types.Value, len(texts))
	for i, t := range texts {
		values[i] = types.String(t)
	}
	return cedar.NewSet(values...)
}

// record checks attributes against what is declared for them. Its errors name
// attributes and never hold a value.
func record(attrs map[string]any, declared shape, tenant ident.Tenant) (cedar.Record, error) {
	m := make(cedar.RecordMap, len(attrs)+1)
	for name, v := range attrs {
		want, ok := declared[name]
		if !ok || name == "tenant" {
			return cedar.Record{}, fmt.Errorf("the policy schema declares no attribute %.64q", name)
		}
		value, ok := convert(v, want)
		if !ok {
			return cedar.Record{}, fmt.Errorf("attribute %s: want %s", name, want)
		}
		m[types.String(name)] = value
	}
	if declared["tenant"] == kindString {
		m["tenant"] = types.String(tenant)
	}
	if len(m) == 0 {
		return cedar.Record{}, nil
	}
	return cedar.NewRecord(m), nil
}

func convert(v any, want kind) (types.Value, bool) {
	switch v := v.(type) {
	case string:
		return types.String(v), want == kindString && len(v) <= maxAttrBytes
	case bool:
		return types.Boolean(v), want == kindBool
	case int64:
		return types.Long(v), want == kindLong
	case int:
		return types.Long(v), want == kindLong
	case []string:
		n := 0
		for _, s := range v {
			n += len(s)
		}
		if want != kindStrings || len(v) > maxAttrItems || n > maxAttrBytes {
			return nil, false
		}
		return set(v), true
	}
	return nil, false
}
