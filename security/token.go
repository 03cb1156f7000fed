package security

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
)

// skew is how far clocks may differ that say when a token was made.
const skew = time.Minute

// maxCached bounds how many verified tokens are remembered.
const maxCached = 4096

// bad is a refusal that tells why. It holds nothing of the token.
func bad(why string) error { return fmt.Errorf("%w: %s", authz.ErrBadToken, why) }

// Verify says whose a token is. Its errors wrap [authz.ErrBadToken].
func (r *Room) Verify(_ context.Context, token string) (authz.Principal, error) {
	if len(token) > maxTokenBytes {
		return authz.Principal{}, bad("it is too long")
	}
	now := r.cfg.Now()
	sum := sha256.Sum256([]byte(token))
	p, known := r.tokens.get(sum)
	if !known {
		c, err := r.read(token)
		if err != nil {
			return authz.Principal{}, err
		}
		if p, err = r.accept(c, now); err != nil {
			return authz.Principal{}, err
		}
		if !r.tokens.put(sum, c.ID, p) {
			return authz.Principal{}, bad("it has been revoked")
		}
	}
	if !now.Before(p.Expires) {
		return authz.Principal{}, bad("it has expired")
	}
	return p, nil
}

// head is the part of a token that says how it is signed. What is not declared
// here must not be in it: a key that a token brings itself proves nothing.
type head struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Type      string `json:"typ"`
}

// read returns what a token says, once its signature has been verified.
func (r *Room) read(token string) (c claims, err error) {
	var parts [3][]byte
	rest := token
	for i := range parts {
		part, after, found := strings.Cut(rest, ".")
		if found != (i < 2) {
			return c, bad("it is not a signed token")
		}
		// strict: the same bytes in another writing would be another token
		if parts[i], err = base64.RawURLEncoding.Strict().DecodeString(part); err != nil || len(parts[i]) == 0 || strings.ContainsAny(part, "\r\n") {
			return c, bad("it is not a signed token")
		}
		rest = after
	}
	var h head
	if err := json.Unmarshal(parts[0], &h, json.RejectUnknownMembers(true)); err != nil {
		return c, bad("its head is not of this issuer's form")
	}
	switch {
	case h.Algorithm != string(jose.ES256):
		return c, bad("it is not signed with ES256")
	case h.Type != tokenType:
		return c, bad("it is not an access token")
	case h.KeyID != r.issuer.kid:
		return c, bad("it is signed with a key that is not this issuer's")
	}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return c, bad("it is not a signed token")
	}
	payload, err := signed.Verify(&r.issuer.key.PublicKey)
	if err != nil {
		return c, bad("its signature is wrong")
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return c, bad("its claims are not of this issuer's form")
	}
	return c, nil
}

// accept says whose the claims are.
func (r *Room) accept(c claims, now time.Time) (authz.Principal, error) {
	expires := time.Unix(c.Expires, 0)
	switch {
	case !r.issuer.made(c.Issuer):
		return authz.Principal{}, bad("another issuer made it")
	case c.Audience != audience:
		return authz.Principal{}, bad("it is for another audience")
	case c.Expires <= 0 || !now.Before(expires):
		return authz.Principal{}, bad("it has expired")
	case c.NotBefore <= 0 || now.Add(skew).Before(time.Unix(c.NotBefore, 0)):
		return authz.Principal{}, bad("it is not valid yet")
	case c.IssuedAt <= 0 || now.Add(skew).Before(time.Unix(c.IssuedAt, 0)):
		return authz.Principal{}, bad("it comes from the future")
	case c.Subject == "" || len(c.Subject) > 2*ident.MaxLen:
		return authz.Principal{}, bad("it names no subject")
	case !ident.Valid(c.ID):
		return authz.Principal{}, bad("it has no id")
	case !ident.Valid(c.Tenant):
		return authz.Principal{}, bad("it names no tenant")
	case c.Scopes == nil || len(c.Scopes) > maxScopes:
		return authz.Principal{}, bad("it has no scopes, or too many")
	}
	for _, s := range c.Scopes {
		if !scopeForm.MatchString(s) {
			return authz.Principal{}, bad("one of its scopes is not written as job:create")
		}
	}
	return authz.Principal{Sub: c.Subject, Scopes: c.Scopes, Tenant: ident.Tenant(c.Tenant), Expires: expires.UTC(), Token: c.ID}, nil
}

// cache remembers tokens that were verified, by their hash, and the ids of those
// that were revoked. A token that is revoked is forgotten at the same moment.
type cache struct {
	mu      sync.RWMutex
	known   map[[sha256.Size]byte]cached
	revoked map[string]time.Time // by jti: when it would have expired
}

type cached struct {
	id string
	p  authz.Principal
}

func newCache() *cache {
	return &cache{known: map[[sha256.Size]byte]cached{}, revoked: map[string]time.Time{}}
}

func (c *cache) get(sum [sha256.Size]byte) (authz.Principal, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	k, ok := c.known[sum]
	return k.p, ok
}

// put remembers a token, unless it has been revoked.
func (c *cache) put(sum [sha256.Size]byte, id string, p authz.Principal) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, gone := c.revoked[id]; gone {
		return false
	}
	for k := range c.known { // one that chance picks makes room
		if len(c.known) < maxCached {
			break
		}
		delete(c.known, k)
	}
	c.known[sum] = cached{id, p}
	return true
}

// revoke refuses a token from now on.
func (c *cache) revoke(id string, expires time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revoked[id] = expires
	for k, v := range c.known {
		if v.id == id {
			delete(c.known, k)
		}
	}
}

// prune forgets what has expired.
func (c *cache) prune(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, v := range c.known {
		if !now.Before(v.p.Expires) {
			delete(c.known, k)
		}
	}
	for id, expires := range c.revoked {
		if !now.Before(expires) {
			delete(c.revoked, id)
		}
	}
}
