package security

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/contract/authz"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// forge signs a head and a payload, as they are, with key.
func forge(t *testing.T, key *ecdsa.PrivateKey, head, payload string) string {
	t.Helper()
	in := b64([]byte(head)) + "." + b64([]byte(payload))
	sum := sha256.Sum256([]byte(in))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return in + "." + b64(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// with returns m with changes; a nil removes its key.
func with(m map[string]any, pairs ...any) map[string]any {
	m = maps.Clone(m)
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == nil {
			delete(m, pairs[i].(string))
		} else {
			m[pairs[i].(string)] = pairs[i+1]
		}
	}
	return m
}

func TestVerifyRefusesForgeries(t *testing.T) {
	r := openRoom(t)
	key, now := r.issuer.key, r.clock.now()
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	goodHead := map[string]any{"alg": "ES256", "kid": r.issuer.kid, "typ": "at+jwt"}
	good := map[string]any{"iss": r.cfg.Issuer, "sub": "owner", "aud": "fragua", "exp": now.Add(time.Hour).Unix(), "nbf": now.Unix(),
		"iat": now.Unix(), "jti": "tok_1", "tenant_id": "default", "scopes": []string{"*"}}
	head, payload := text(t, goodHead), text(t, good)
	if p, err := r.Verify(t.Context(), forge(t, key, head, payload)); err != nil || p.Sub != "owner" {
		t.Fatalf("the token that all attacks are made from is refused: %v", err)
	}
	h := func(pairs ...any) string { return forge(t, key, text(t, with(goodHead, pairs...)), payload) }
	c := func(pairs ...any) string { return forge(t, key, head, text(t, with(good, pairs...))) }
	whole := forge(t, key, head, payload)
	parts := strings.Split(whole, ".")
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	strangePoint, err := stranger.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	jwk := map[string]any{"kty": "EC", "crv": "P-256", "x": b64(strangePoint[1:33]), "y": b64(strangePoint[33:])}
	hs := func(head string, secret []byte) string {
		in := b64([]byte(head)) + "." + b64([]byte(payload))
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(in))
		return in + "." + b64(mac.Sum(nil))
	}
	hsHead := text(t, with(goodHead, "alg", "HS256"))
	raw := func(i int) []byte {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		return b
	}

	attacks := map[string]string{
		"empty": "", "dots": "..", "one part": parts[0], "two parts": parts[0] + "." + parts[1], "four parts": whole + ".x", "five parts, as if encrypted": whole + ".x.y",
		"not base64": "!.!.!", "no signature": parts[0] + "." + parts[1] + ".", "no payload": parts[0] + ".." + parts[2],
		"spaces around": " " + whole, "a line end inside": parts[0] + ".\n" + parts[1] + "." + parts[2],
		"padded base64":                parts[0] + "." + parts[1] + "=." + parts[2],
		"standard base64":              strings.NewReplacer("-", "+", "_", "/").Replace(whole) + "==",
		"bits that base64 leaves over": parts[0] + "." + parts[1] + "." + spare(parts[2]),
		"JSON serialization":           text(t, map[string]any{"protected": parts[0], "payload": parts[1], "signature": parts[2]}),

		"alg none, no signature":  b64([]byte(text(t, with(goodHead, "alg", "none")))) + "." + parts[1] + ".",
		"alg none, old signature": b64([]byte(text(t, with(goodHead, "alg", "none")))) + "." + parts[1] + "." + parts[2],
		"alg None":                h("alg", "None"), "alg empty": h("alg", ""), "alg missing": h("alg", nil), "alg es256": h("alg", "es256"), "alg is a list": h("alg", []string{"ES256"}),
		"alg ES384": h("alg", "ES384"), "alg RS256": h("alg", "RS256"), "alg EdDSA": h("alg", "EdDSA"),
		"HS256 with the public key as PEM": hs(hsHead, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		"HS256 with the public key as DER": hs(hsHead, der),
		"HS256 with the public point":      hs(hsHead, point),
		"HS256 with nothing":               hs(hsHead, nil),
		"ES256 in the head, HMAC beneath":  hs(head, der),
		"kid of another":                   h("kid", "other"), "kid missing": h("kid", nil), "kid is a path": h("kid", "../../dev/null"), "kid is SQL": h("kid", "' OR 1=1 --"), "kid is a number": h("kid", 1),
		"typ JWT": h("typ", "JWT"), "typ missing": h("typ", nil), "typ id token": h("typ", "id+jwt"),
		"brings its own key, jwk": forge(t, stranger, text(t, with(goodHead, "jwk", jwk)), payload),
		"brings its own key, jku": forge(t, stranger, text(t, with(goodHead, "jku", "http://127.0.0.1:1/keys")), payload),
		"brings its own key, x5u": forge(t, stranger, text(t, with(goodHead, "x5u", "http://127.0.0.1:1/cert")), payload),
		"brings its own key, x5c": forge(t, stranger, text(t, with(goodHead, "x5c", []string{base64.StdEncoding.EncodeToString(der)})), payload),
		"good key, with jku too":  h("jku", "http://127.0.0.1:1/keys"),
		"unknown crit":            h("crit", []string{"exp2"}, "exp2", 1),
		"b64 false":               h("b64", false, "crit", []string{"b64"}),
		"compressed":              h("zip", "DEF"),
		"a key twice in the head": forge(t, key, `{"alg":"none","alg":"ES256","kid":"`+r.issuer.kid+`","typ":"at+jwt"}`, payload),
		"a key in other case":     forge(t, key, `{"ALG":"ES256","kid":"`+r.issuer.kid+`","typ":"at+jwt"}`, payload),
		"head is a list":          forge(t, key, `[]`, payload), "head is null": forge(t, key, `null`, payload), "head and more": forge(t, key, head+"{}", payload),

		"signed by a stranger": forge(t, stranger, head, payload),
		"payload of another":   parts[0] + "." + b64([]byte(text(t, with(good, "tenant_id", "other")))) + "." + parts[2],
		"signature cut":        parts[0] + "." + parts[1] + "." + b64(raw(2)[:63]),
		"signature longer":     parts[0] + "." + parts[1] + "." + b64(append(raw(2), 0)),
		"signature of zeros":   parts[0] + "." + parts[1] + "." + b64(make([]byte, 64)),
		"signature of ones":    parts[0] + "." + parts[1] + "." + b64(bytes.Repeat([]byte{0xff}, 64)),
		"signature as DER":     parts[0] + "." + parts[1] + "." + b64(derSignature(t, key, parts[0]+"."+parts[1])),

		"another issuer": c("iss", "http://evil.example"), "no issuer": c("iss", nil), "issuer and more": c("iss", r.cfg.Issuer+"/"), "issuers": c("iss", []string{r.cfg.Issuer}), "issuer is a number": c("iss", 1),
		"another audience": c("aud", "other"), "no audience": c("aud", nil), "audiences": c("aud", []string{"other", "fragua"}), "audience null": forge(t, key, head, strings.Replace(payload, `"aud":"fragua"`, `"aud":null`, 1)), "audience prefix": c("aud", "fragua2"),
		"expired": c("exp", now.Add(-time.Second).Unix()), "expires now": c("exp", now.Unix()), "never expires": c("exp", nil), "exp 0": c("exp", 0), "exp negative": c("exp", -1), "exp is text": c("exp", "9999999999"), "exp is a fraction": c("exp", 9999999999.5),
		"exp beyond all numbers": forge(t, key, head, strings.Replace(payload, text(t, good["exp"]), "1e99", 1)), "exp is a list": c("exp", []int{1}),
		"not yet valid": c("nbf", now.Add(2*time.Minute).Unix()), "no nbf": c("nbf", nil), "nbf text": c("nbf", "0"),
		"from the future": c("iat", now.Add(2*time.Minute).Unix()), "no iat": c("iat", nil),
		"no subject": c("sub", nil), "empty subject": c("sub", ""), "subject is a number": c("sub", 1), "long subject": c("sub", strings.Repeat("x", 1000)),
		"no id": c("jti", nil), "id is a path": c("jti", "../x"),
		"no tenant": c("tenant_id", nil), "empty tenant": c("tenant_id", ""), "tenant null": forge(t, key, head, strings.Replace(payload, `"tenant_id":"default"`, `"tenant_id":null`, 1)),
		"tenants": c("tenant_id", []string{"default"}), "tenant is a number": c("tenant_id", 1), "tenant is an object": c("tenant_id", map[string]any{"id": "default"}), "tenant is a path": c("tenant_id", "../default"), "tenant *": c("tenant_id", "*"), "tenant with NUL": c("tenant_id", "default\x00"),
		"tenant in other case": forge(t, key, head, strings.Replace(payload, `"tenant_id"`, `"Tenant_ID"`, 1)),
		"tenant twice":         forge(t, key, head, strings.Replace(payload, `{`, `{"tenant_id":"other",`, 1)),
		"no scopes":            c("scopes", nil), "scopes are text": c("scopes", "*"), "scopes are an object": c("scopes", map[string]any{"*": true}), "a scope is a number": c("scopes", []any{1}), "a scope is null": c("scopes", []any{nil}),
		"a scope is odd": c("scopes", []string{"job:create *"}), "a scope is empty": c("scopes", []string{""}), "many scopes": c("scopes", strings.Split(strings.Repeat("job:read ", 100), " ")[:100]),
		"payload is a list": forge(t, key, head, `[]`), "payload is text": forge(t, key, head, `"x"`), "payload is not JSON": forge(t, key, head, `{`), "payload and more": forge(t, key, head, payload+payload), "payload is not UTF-8": forge(t, key, head, strings.Replace(payload, "owner", "own\xff", 1)),
		"huge": c("pad", strings.Repeat("x", 9000)), "huge head": h("pad", strings.Repeat("x", 9000)), "a megabyte of dots": strings.Repeat(".", 1<<20), "deep payload": forge(t, key, head, strings.Repeat("[", 3000)),
	}
	for name, token := range attacks {
		p, err := r.Verify(t.Context(), token)
		if err == nil {
			t.Errorf("%s: let in as %+v", name, p)
			continue
		}
		if !errors.Is(err, authz.ErrBadToken) {
			t.Errorf("%s: %v is not a refusal", name, err)
		}
		if msg := err.Error(); len(msg) > 200 || strings.Contains(msg, "evil") || len(token) > 20 && strings.Contains(msg, token[:20]) {
			t.Errorf("%s: tells too much: %s", name, msg)
		}
		if p.Sub != "" || p.Tenant != "" || len(p.Scopes) > 0 {
			t.Errorf("%s: a refusal with a principal", name)
		}
	}
	if len(attacks) < 95 {
		t.Errorf("only %d attacks", len(attacks))
	}
	if r.logs.String() != "" {
		t.Errorf("logged: %s", r.logs)
	}
}

// spare changes a bit of the last letter that stands for no bit of the bytes.
func spare(part string) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(letters, part[len(part)-1])
	return part[:len(part)-1] + string(letters[last^1])
}

func derSignature(t *testing.T, key *ecdsa.PrivateKey, in string) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(in))
	sig, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func TestVerifyForgetsInTime(t *testing.T) {
	r := openRoom(t)
	token, c, err := r.mint(t.Context(), r.claim("", "acme", []string{"job:read"}, time.Minute), authz.Principal{Sub: "owner"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second is from the cache
		if p, err := r.Verify(t.Context(), token); err != nil || p.Tenant != "acme" || p.Sub != "token:"+c.ID {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	r.clock.add(time.Minute)
	if _, err := r.Verify(t.Context(), token); !errors.Is(err, authz.ErrBadToken) {
		t.Errorf("an expired token is let in from the cache: %v", err)
	}
	r.tokens.prune(r.clock.now())
	if n := len(r.tokens.known); n != 0 {
		t.Errorf("%d tokens are remembered", n)
	}
}

func TestVerifyRemembersABoundedNumber(t *testing.T) {
	r := openRoom(t)
	for i := range maxCached + 100 {
		var sum [32]byte
		sum[0], sum[1] = byte(i), byte(i>>8)
		r.tokens.put(sum, "x", authz.Principal{Sub: "x", Expires: r.clock.now().Add(time.Hour)})
	}
	if n := len(r.tokens.known); n > maxCached {
		t.Errorf("%d tokens are remembered", n)
	}
	if _, err := r.Verify(t.Context(), r.ownerToken(t)); err != nil {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	r := openRoom(f)
	token := r.ownerToken(f)
	f.Add(token)
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := r.Verify(t.Context(), s); err == nil && s != token {
			t.Errorf("let in: %q", s)
		}
	})
}
