package far

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"fragua.dev/fragua/contract/artifacts"
	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/identity"
	"fragua.dev/fragua/internal/peer"
)

// How long the security room is waited for.
const (
	verifyTime = 2 * time.Second // a client is told to come again
	decideTime = 20 * time.Second
	revealTime = 30 * time.Second
	issueTime  = 15 * time.Second
)

const security = "security"

// Security is the security room of another process, as one room asks it.
type Security struct {
	Caller *peer.Caller
	Self   *peer.Identity
	IDs    ident.Source
	Now    func() time.Time
}

var (
	_ authz.Verifier     = (*Security)(nil)
	_ authz.Decider      = (*Security)(nil)
	_ identity.Authority = (*Security)(nil)
	_ artifacts.Vault    = (*Security)(nil)
)

// Guard is the security room of this process, as it answers others.
type Guard struct {
	Verifier  authz.Verifier
	Decider   authz.Decider
	Authority identity.Authority
	Vault     artifacts.Vault
	Service   func(room string) authz.Principal
	Reached   func(ctx context.Context, url string) error
}

// Answer has h answer what other rooms ask of the security room.
func (g Guard) Answer(h *peer.Hall) {
	peer.Answer(h, "verify", nil, func(ctx context.Context, _ string, token string) (authz.Principal, error) {
		return g.Verifier.Verify(ctx, token)
	})
	peer.Answer(h, "decide", nil, func(ctx context.Context, _ string, q question) (authz.Answer, error) {
		return g.Decider.Decide(ctx, q.asked()), nil
	})
	peer.Answer(h, "service", nil, func(_ context.Context, asker string, _ struct{}) (authz.Principal, error) {
		return g.Service(asker), nil
	})
	peer.Answer(h, "issue", []string{"worker", "execution"}, func(ctx context.Context, asker string, in order) (identity.Certificate, error) {
		if !mayHave(asker, in.ID) {
			return identity.Certificate{}, errors.New("certificate: that name is not this room's to give")
		}
		return g.Authority.Issue(ctx, in.ID, in.TTL)
	})
	peer.Answer(h, "reveal", []string{"execution"}, func(ctx context.Context, _ string, in wish) (map[string]string, error) {
		return g.Vault.Reveal(ctx, in.Tenant, in.Names)
	})
	peer.Answer(h, "reached", []string{"orchestration"}, func(ctx context.Context, _ string, url string) (struct{}, error) {
		return struct{}{}, g.Reached(ctx, url)
	})
}

// mayHave says whether a room may have a certificate for a SPIFFE id: the worker room
// for workers, the execution room for itself.
func mayHave(asker, id string) bool {
	if asker == "execution" {
		return id == identity.Room("execution")
	}
	rest, is := strings.CutPrefix(id, "spiffe://"+identity.TrustDomain+"/tenant/")
	parts := strings.Split(rest, "/")
	return asker == "worker" && is && len(parts) == 3 && ident.Valid(parts[0]) && parts[1] == "worker" && ident.Valid(parts[2])
}

// Verify asks whose a token is.
func (s *Security) Verify(ctx context.Context, token string) (authz.Principal, error) {
	ctx, cancel := context.WithTimeout(ctx, verifyTime)
	defer cancel()
	return peer.Ask[authz.Principal](ctx, s.Caller, security, "verify", token)
}

// Decide asks whether someone may do something. What cannot be asked is denied.
func (s *Security) Decide(ctx context.Context, q authz.Question) authz.Answer {
	ctx, cancel := context.WithTimeout(ctx, decideTime)
	defer cancel()
	in, err := asking(q)
	if err == nil {
		var a authz.Answer
		if a, err = peer.Ask[authz.Answer](ctx, s.Caller, security, "decide", in); err == nil && a.DecisionID != "" {
			return a
		}
	}
	a := authz.Answer{DecisionID: ident.Decision(s.IDs("dec")), Reason: "it could not be decided: the security service did not answer"}
	if err != nil && !errors.Is(err, peer.ErrAway) {
		a.Reason = "it could not be decided: " + err.Error()
	}
	a.Event = authz.Said(q, a, s.Now())
	return a
}

// Service asks who the room is that asks.
func (s *Security) Service(ctx context.Context) (authz.Principal, error) {
	return peer.Ask[authz.Principal](ctx, s.Caller, security, "service", struct{}{})
}

// Reached tells under which URL clients reach the house.
func (s *Security) Reached(ctx context.Context, url string) error {
	_, err := peer.Ask[struct{}](ctx, s.Caller, security, "reached", url)
	return err
}

type order struct {
	ID  string        `json:"id"`
	TTL time.Duration `json:"ttl"`
}

// Issue asks for a certificate.
func (s *Security) Issue(ctx context.Context, spiffeID string, ttl time.Duration) (identity.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, issueTime)
	defer cancel()
	return peer.Ask[identity.Certificate](ctx, s.Caller, security, "issue", order{spiffeID, ttl})
}

// Roots returns what certificates are verified against.
func (s *Security) Roots() (*x509.CertPool, []byte) { return s.Self.Roots, s.Self.PEM }

type wish struct {
	Tenant ident.Tenant `json:"tenant_id"`
	Names  []string     `json:"names"`
}

// Reveal asks for secrets.
func (s *Security) Reveal(ctx context.Context, t ident.Tenant, names []string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, revealTime)
	defer cancel()
	return peer.Ask[map[string]string](ctx, s.Caller, security, "reveal", wish{t, names})
}

// A question is an authz.Question on its way, with attributes that keep their types.
type question struct {
	authz.Question
	Attrs   map[string]value `json:"resource_attrs,omitempty"`
	Context map[string]value `json:"asked_with,omitempty"`
}

// A value is an attribute on its way: one of the types that policies know.
type value struct {
	Text   *string   `json:"s,omitempty"`
	Yes    *bool     `json:"b,omitempty"`
	Number *int64    `json:"n,omitempty"`
	List   *[]string `json:"l,omitempty"`
}

func asking(q authz.Question) (out question, err error) {
	out.Question = q
	out.Question.Resource.Attrs, out.Question.Context = nil, nil
	if out.Attrs, err = values(q.Resource.Attrs); err != nil {
		return out, err
	}
	out.Context, err = values(q.Context)
	return out, err
}

func values(attrs map[string]any) (map[string]value, error) {
	if attrs == nil {
		return nil, nil
	}
	out := make(map[string]value, len(attrs))
	for k, v := range attrs {
		switch v := v.(type) {
		case string:
			out[k] = value{Text: &v}
		case bool:
			out[k] = value{Yes: &v}
		case int64:
			out[k] = value{Number: &v}
		case int:
			n := int64(v)
			out[k] = value{Number: &n}
		case []string:
			out[k] = value{List: &v}
		default:
			return nil, fmt.Errorf("attribute %.64q is of a type that no policy knows", k)
		}
	}
	return out, nil
}

func (q question) asked() authz.Question {
	out := q.Question
	out.Resource.Attrs, out.Context = plain(q.Attrs), plain(q.Context)
	return out
}

func plain(vs map[string]value) map[string]any {
	if vs == nil {
		return nil
	}
	out := make(map[string]any, len(vs))
	for k, v := range vs {
		switch {
		case v.Text != nil:
			out[k] = *v.Text
		case v.Yes != nil:
			out[k] = *v.Yes
		case v.Number != nil:
			out[k] = *v.Number
		case v.List != nil:
			out[k] = *v.List
		default:
			out[k] = nil // of no type: the decider denies it
		}
	}
	return out
}
