// Package authz is the question «may I?», its answer, and who can be asked. The
// security room answers; every other room asks, once for each call.
package authz

import (
	"context"
	"errors"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
)

// A Principal is who a token says is calling.
type Principal struct {
	Sub     string       `json:"sub"`
	Scopes  []string     `json:"scopes"` // job:create, exec:run, …; * is every scope
	Tenant  ident.Tenant `json:"tenant_id"`
	Expires time.Time    `json:"expires_at"`

	Token string `json:"-"` // the token's id: the security room's, which notes what is made with it
}

// Errors of a Verifier, for errors.Is.
var (
	ErrNoToken  = errors.New("no bearer token")
	ErrBadToken = errors.New("the bearer token is not valid")
)

// A Verifier says whose a bearer token is. Any error is a refusal.
type Verifier interface {
	Verify(ctx context.Context, token string) (Principal, error)
}

// A Resource is what a call is about. Tenant is the owner's, as stored.
type Resource struct {
	Type   string // Job, Pipeline, Worker, Node, Offer, Artifact, Telemetry, Audit, Secret, Event
	ID     string
	Tenant ident.Tenant
	Attrs  map[string]any // string, bool, int64 or []string, as the Cedar schema declares
}

// A Question asks whether a principal may do something.
type Question struct {
	Principal   Principal
	Action      string // Job::create
	Resource    Resource
	Context     map[string]any
	TraceParent string
	Correlation string
}

// An Answer is a decision. Its zero value denies.
type Answer struct {
	Permit      bool
	DecisionID  ident.Decision
	Reason      string   // why not
	Obligations []string // what the caller must still see to; an unknown one denies
	Policies    []string // the policies that decided
	Event       event.Event
}

// Said returns the event that tells everyone of the answer to q.
func Said(q Question, a Answer, at time.Time) event.Event {
	about := event.About{Tenant: q.Principal.Tenant, Key: string(a.DecisionID), Correlation: q.Correlation, TraceParent: q.TraceParent, At: at}
	who := event.Principal{Sub: q.Principal.Sub, Scopes: q.Principal.Scopes, Tenant: q.Principal.Tenant}
	what := q.Resource.Type + "::" + q.Resource.ID
	if a.Permit {
		return event.AuthGranted.Event(about, event.Grant{Principal: who, Scope: q.Action, DecisionID: a.DecisionID, Resource: what, Policies: a.Policies})
	}
	return event.AuthorizationDenied.Event(about, event.Denial{Principal: who, Resource: what, Action: q.Action, Reason: a.Reason, DecisionID: a.DecisionID})
}

// A Decider answers questions. It answers, and never fails: an error inside is
// a denial. The caller commits Answer.Event in the transaction of what was asked
// about, or by itself where nothing else is written.
type Decider interface {
	Decide(ctx context.Context, q Question) Answer
}

type principalKey struct{}

// With returns a context that carries who is calling.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// From returns who is calling; the zero Principal, which may do nothing, if
// nobody has been verified.
func From(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}
