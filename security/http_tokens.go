package security

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-jose/go-jose/v4"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/httpapi"
)

// Lives of tokens that people make.
const (
	defaultTTL = 24 * time.Hour
	maxTTL     = 10 * 365 * 24 * time.Hour
)

func (r *Room) tokenRoutes(api huma.API) {
	tags := []string{"security"}
	anyone := []map[string][]string{{}}
	huma.Register(api, huma.Operation{
		OperationID: "create-token", Method: http.MethodPost, Path: "/tokens", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Make a token",
		Description: "With some of the caller's own scopes, and no longer a life than the caller's token has. " +
			"The token is answered once and not kept.",
	}, r.createToken)
	huma.Register(api, huma.Operation{
		OperationID: "list-tokens", Method: http.MethodGet, Path: "/tokens", Tags: tags, Summary: "Tokens that were made, without the tokens themselves",
	}, r.listTokens)
	huma.Register(api, huma.Operation{
		OperationID: "revoke-token", Method: http.MethodDelete, Path: "/tokens/{id}", Tags: tags, Summary: "Revoke a token",
		Description: "It is refused from now on, and so are those that were made with it, and with those. " +
			"It must not have scopes that the caller lacks, unless the caller made it. Revoking it again is not an error.",
	}, r.revokeToken)
	huma.Register(api, huma.Operation{
		OperationID: "whoami", Method: http.MethodGet, Path: "/whoami", Tags: tags, Summary: "Whose the token is, and what it may do",
	}, r.whoami)
	huma.Register(api, huma.Operation{
		OperationID: "openid-configuration", Method: http.MethodGet, Path: "/.well-known/openid-configuration", Tags: tags, Security: anyone,
		Summary: "What the issuer of tokens is",
	}, r.discovery)
	huma.Register(api, huma.Operation{
		OperationID: "jwks", Method: http.MethodGet, Path: "/.well-known/jwks.json", Tags: tags, Security: anyone,
		Summary: "The keys that the issuer signs with",
	}, r.jwks)
}

type tokenOrder struct {
	Tenant ident.Tenant `json:"tenant_id,omitempty" maxLength:"128" doc:"The caller's unless given; another only with the scope * in the tenant default"`
	Scopes []string     `json:"scopes,omitempty" maxItems:"64" nullable:"false" doc:"The caller's unless given"`
	TTL    int64        `json:"ttl_ms,omitempty" minimum:"1000" maximum:"315360000000" doc:"How long it lives, in milliseconds; a day unless given"`
}

// A TokenView is a token without itself. It is exported for what describes the API,
// which passes over embedded types that are not.
type TokenView struct {
	ID      string       `json:"token_id"`
	Sub     string       `json:"sub" doc:"What decisions name the token's owner"`
	Tenant  ident.Tenant `json:"tenant_id"`
	Scopes  []string     `json:"scopes"`
	Maker   string       `json:"created_by"`
	Created time.Time    `json:"created_at"`
	Expires time.Time    `json:"expires_at"`
	Revoked *time.Time   `json:"revoked_at,omitempty"`
}

type madeToken struct {
	TokenView
	Token string `json:"token" doc:"Send it as Authorization: Bearer"`
}

func (r *Room) createToken(ctx context.Context, in *struct{ Body tokenOrder }) (*struct{ Body madeToken }, error) {
	me, o := authz.From(ctx), in.Body
	if o.Tenant == "" {
		o.Tenant = me.Tenant
	}
	if o.Scopes == nil {
		o.Scopes = me.Scopes
	}
	var faults []spec.Fault
	if len(o.Scopes) == 0 {
		faults = append(faults, spec.Fault{Path: "scopes", Message: "a token without a scope may do nothing: leave it out for your own"})
	}
	if !ident.Valid(string(o.Tenant)) {
		faults = append(faults, spec.Fault{Path: "tenant_id", Message: ident.Check("tenant_id", "").Error()})
	}
	for i, s := range o.Scopes {
		if !scopeForm.MatchString(s) || !r.policies.knows(s) {
			faults = append(faults, spec.Fault{Path: fmt.Sprintf("scopes[%d]", i), Message: "no policy knows this scope; known are *, and " + strings.Join(r.policies.scopes, ", ")})
		}
	}
	if len(faults) > 0 {
		return nil, httpapi.Invalid("body", faults)
	}
	answer, err := r.gate.Ask(ctx, "Token::create", authz.Resource{Type: "Token", ID: "*", Tenant: me.Tenant,
		Attrs: map[string]any{"for_tenant": string(o.Tenant), "scopes": o.Scopes}}, nil)
	if err != nil {
		return nil, err
	}
	ttl, left := time.Duration(o.TTL)*time.Millisecond, me.Expires.Sub(r.cfg.Now())
	if o.TTL == 0 {
		ttl = min(defaultTTL, left)
	}
	if refused := exceeds(me, o.Scopes, ttl, left); refused != "" {
		return nil, r.forbid(ctx, answer, "Token::create", "*", refused)
	}
	token, c, err := r.mint(ctx, r.claim("", o.Tenant, slices.Compact(slices.Sorted(slices.Values(o.Scopes))), ttl), me, answer.Event)
	if errors.Is(err, errRevoked) {
		return nil, r.forbid(ctx, answer, "Token::create", "*", errRevoked.Error())
	}
	if err != nil {
		return nil, err
	}
	return &struct{ Body madeToken }{madeToken{Token: token, TokenView: TokenView{
		ID: c.ID, Sub: c.Subject, Tenant: o.Tenant, Scopes: c.Scopes, Maker: me.Sub,
		Created: time.Unix(c.IssuedAt, 0).UTC(), Expires: time.Unix(c.Expires, 0).UTC(),
	}}}, nil
}

// exceeds says in what a token would do more than the one it is made with.
func exceeds(me authz.Principal, scopes []string, ttl, left time.Duration) string {
	more := lacks(me.Scopes, scopes)
	switch {
	case len(more) > 0:
		return "a token cannot have scopes that its maker lacks: " + strings.Join(more, ", ")
	case ttl > left:
		return "a token cannot outlive the one it is made with, which expires at " + me.Expires.UTC().Format(time.RFC3339)
	case ttl < time.Second:
		return "the token it would be made with expires now"
	}
	return ""
}

// forbid turns a permit of doing action to the token id into a denial, for a reason
// that no policy can know.
func (r *Room) forbid(ctx context.Context, a authz.Answer, action, id, reason string) error {
	me := authz.From(ctx)
	denial := event.AuthorizationDenied.Event(
		event.About{Tenant: me.Tenant, Key: string(a.DecisionID), Correlation: httpapi.Correlation(ctx), TraceParent: httpapi.TraceParent(ctx), At: r.cfg.Now()},
		event.Denial{Principal: event.Principal{Sub: me.Sub, Scopes: me.Scopes, Tenant: me.Tenant}, Resource: "Token::" + id, Action: action, Reason: reason, DecisionID: a.DecisionID})
	return r.gate.Deny(ctx, authz.Answer{DecisionID: a.DecisionID, Reason: reason, Event: denial})
}

type tokenPage struct {
	Body struct {
		Items []TokenView `json:"items"`
		Next  string      `json:"next_cursor,omitempty"`
	}
}

func (r *Room) listTokens(ctx context.Context, in *httpapi.Page) (*tokenPage, error) {
	t := authz.From(ctx).Tenant
	if err := r.gate.Pass(ctx, "Token::read", authz.Resource{Type: "Token", ID: "*", Tenant: t}); err != nil {
		return nil, err
	}
	rows, err := r.db.Query(ctx, `SELECT id, sub, scopes, maker, created_ms, expires_ms, revoked_ms FROM token
		WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3`, string(t), in.Cursor, in.Limit+1)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := &tokenPage{}
	for rows.Next() {
		if len(out.Body.Items) == in.Limit {
			out.Body.Next = out.Body.Items[in.Limit-1].ID
			break
		}
		var (
			v                         = TokenView{Tenant: t}
			scopes                    string
			created, expires, revoked int64
		)
		if err := rows.Scan(&v.ID, &v.Sub, &scopes, &v.Maker, &created, &expires, &revoked); err != nil {
			return nil, err
		}
		v.Scopes, v.Created, v.Expires = strings.Fields(scopes), time.UnixMilli(created).UTC(), time.UnixMilli(expires).UTC()
		if revoked > 0 {
			at := time.UnixMilli(revoked).UTC()
			v.Revoked = &at
		}
		out.Body.Items = append(out.Body.Items, v)
	}
	return out, rows.Err()
}

func (r *Room) whoami(ctx context.Context, _ *struct{}) (*struct{ Body authz.Principal }, error) {
	return &struct{ Body authz.Principal }{authz.From(ctx)}, nil
}

type discovery struct {
	Issuer     string   `json:"issuer"`
	Keys       string   `json:"jwks_uri"`
	Tokens     string   `json:"token_endpoint"`
	Types      []string `json:"response_types_supported"`
	Subjects   []string `json:"subject_types_supported"`
	Algorithms []string `json:"id_token_signing_alg_values_supported"`
	Claims     []string `json:"claims_supported"`
	Scopes     []string `json:"scopes_supported"`
}

func (r *Room) discovery(context.Context, *struct{}) (*struct{ Body discovery }, error) {
	at := r.issuer.name()
	return &struct{ Body discovery }{discovery{
		Issuer: at, Keys: at + "/.well-known/jwks.json", Tokens: at + "/tokens",
		Types: []string{"token"}, Subjects: []string{"public"}, Algorithms: []string{string(jose.ES256)},
		Claims: []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "tenant_id", "scopes"},
		Scopes: append([]string{"*"}, r.policies.scopes...),
	}}, nil
}

type keySet struct {
	Keys []publicKey `json:"keys"`
}

type publicKey struct {
	Type      string `json:"kty"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	ID        string `json:"kid"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	Y         string `json:"y"`
}

func (r *Room) jwks(context.Context, *struct{}) (*struct{ Body keySet }, error) {
	point, err := r.issuer.key.PublicKey.Bytes() // 4, then both coordinates
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	x, y := point[1:33], point[33:]
	return &struct{ Body keySet }{keySet{[]publicKey{{
		Type: "EC", Use: "sig", Algorithm: string(jose.ES256), ID: r.issuer.kid, Curve: "P-256",
		X: base64.RawURLEncoding.EncodeToString(x), Y: base64.RawURLEncoding.EncodeToString(y),
	}}}}, nil
}
