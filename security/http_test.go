package security

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-jose/go-jose/v4"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/httpapi"
)

// site is a room behind its API.
type site struct {
	*testRoom
	h    http.Handler
	says described
	t    testing.TB
}

func openSite(t testing.TB) *site {
	return siteOf(t, openRoom(t))
}

func siteOf(t testing.TB, r *testRoom) *site {
	mux := http.NewServeMux()
	api := httpapi.New(mux, "test")
	r.Routes(api)
	return &site{r, httpapi.Handler(mux, httpapi.Options{Verifier: r, Log: r.cfg.Log, IDs: r.cfg.IDs}), described{mux, api.OpenAPI()}, t}
}

// call sends a request, and reads the answer into a map.
func (s *site) call(token, method, target, body string) (int, map[string]any) {
	s.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	s.h.ServeHTTP(w, r)
	var out map[string]any
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			s.t.Fatalf("%s %s: %v: %s", method, target, err, w.Body)
		}
	}
	if out != nil {
		s.says.check(s.t, r, w.Code, out)
	}
	return w.Code, out
}

// described is the API, and what it says of itself.
type described struct {
	mux  *http.ServeMux
	said *huma.OpenAPI
}

// check holds an answer against what the description says of it.
func (d described) check(t testing.TB, r *http.Request, code int, out map[string]any) {
	t.Helper()
	_, pattern := d.mux.Handler(r)
	_, path, _ := strings.Cut(pattern, " ")
	item := d.said.Paths[path]
	if item == nil {
		return
	}
	op := map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "PUT": item.Put, "DELETE": item.Delete}[r.Method]
	if op == nil {
		return
	}
	answer := op.Responses[strconv.Itoa(code)]
	if answer == nil {
		answer = op.Responses["default"]
	}
	for _, m := range answer.Content {
		var res huma.ValidateResult
		huma.Validate(d.said.Components.Schemas, m.Schema, huma.NewPathBuffer(nil, 0), huma.ModeReadFromServer, out, &res)
		if len(res.Errors) > 0 {
			t.Errorf("%s: the description says otherwise of its %d: %v", pattern, code, res.Errors)
		}
	}
}

func (s *site) token(tenant ident.Tenant, scopes ...string) string {
	s.t.Helper()
	token, _, err := s.mint(s.t.Context(), s.claim("", tenant, scopes, time.Hour), authz.Principal{Sub: "test"})
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// hear delivers what the room has told to the room itself, as the bus does.
func (s *site) hear(times int) {
	s.t.Helper()
	rows, err := s.db.Outbox(s.t.Context(), 0, 10_000)
	if err != nil {
		s.t.Fatal(err)
	}
	for range times {
		for _, row := range rows {
			for _, sub := range s.Subscriptions() {
				if sub.Subject == row.Event.Subject {
					if err := sub.Handle(s.t.Context(), row.Event); err != nil {
						s.t.Fatal(err)
					}
				}
			}
		}
	}
}

func TestTokens(t *testing.T) {
	s := openSite(t)
	owner := s.ownerToken(t)
	code, made := s.call(owner, "POST", "/tokens", `{"tenant_id":"acme","scopes":["job:*","token:create","job:*"],"ttl_ms":3600000}`)
	if code != 201 || made["tenant_id"] != "acme" || fmt.Sprint(made["scopes"]) != "[job:* token:create]" || made["expires_at"] != s.clock.now().Add(time.Hour).Format(time.RFC3339) {
		t.Fatalf("%d %v", code, made)
	}
	acme := made["token"].(string)
	if code, me := s.call(acme, "GET", "/whoami", ""); code != 200 || me["tenant_id"] != "acme" || me["sub"] != made["sub"] || fmt.Sprint(me["scopes"]) != "[job:* token:create]" {
		t.Errorf("%d %v", code, me)
	}
	for _, c := range []struct {
		token, body string
		code        int
		says        string
	}{
		{acme, `{"scopes":["job:read"],"ttl_ms":60000}`, 201, ""},
		{acme, `{"scopes":["job:read"]}`, 201, ""}, // as long as its maker's
		{acme, `{}`, 201, ""},
		{acme, `{"scopes":["job:*"],"ttl_ms":3600001}`, 403, "cannot outlive"},
		{acme, `{"scopes":["*"]}`, 403, "scopes that its maker lacks: *"},
		{acme, `{"scopes":["job:read","exec:run","token:*"]}`, 403, "lacks: exec:run, token:*"},
		{acme, `{"tenant_id":"default","scopes":["job:read"]}`, 403, "policy token-other-tenant"},
		{s.token("acme", "*"), `{"tenant_id":"default","scopes":["job:read"]}`, 403, "policy token-other-tenant"},
		{s.token("acme", "job:*"), `{"scopes":["job:read"]}`, 403, "scope token:create is missing"},
		{owner, `{"scopes":["job:reed"]}`, 422, "body.scopes[0]"},
		{owner, `{"scopes":["jobs:*"]}`, 422, "body.scopes[0]"},
		{owner, `{"scopes":["job:read "]}`, 422, "body.scopes[0]"},
		{owner, `{"tenant_id":"../x","scopes":["job:reed"]}`, 422, "body.tenant_id"},
		{owner, `{"ttl_ms":1}`, 422, "body.ttl_ms"},
		{owner, `{"ttl_ms":0}`, 422, "body.ttl_ms"},
		{owner, `{"ttl_ms":9223372036854775807}`, 422, "body.ttl_ms"},
		{owner, `{"ttl":"1h"}`, 422, "body.ttl"},
	} {
		code, out := s.call(c.token, "POST", "/tokens", c.body)
		if code != c.code || !strings.Contains(fmt.Sprint(out), c.says) {
			t.Errorf("%s: %d %v", c.body, code, out)
		}
		if code == 201 {
			p, err := s.Verify(t.Context(), out["token"].(string))
			if err != nil || p.Tenant != "acme" || p.Expires.After(s.clock.now().Add(time.Hour)) {
				t.Errorf("%s: %+v, %v", c.body, p, err)
			}
		}
	}
}

func TestRevoke(t *testing.T) {
	s := openSite(t)
	owner := s.ownerToken(t)
	_, made := s.call(owner, "POST", "/tokens", `{"scopes":["job:read"]}`)
	token, id := made["token"].(string), made["token_id"].(string)
	if code, _ := s.call(token, "GET", "/whoami", ""); code != 200 {
		t.Fatal(code)
	}
	if code, _ := s.call(s.token("acme", "*"), "DELETE", "/tokens/"+id, ""); code != 404 {
		t.Errorf("another tenant revokes: %d", code)
	}
	if code, _ := s.call(token, "DELETE", "/tokens/"+id, ""); code != 403 {
		t.Errorf("without scope: %d", code)
	}
	for range 2 {
		if code, out := s.call(owner, "DELETE", "/tokens/"+id, ""); code != 204 {
			t.Errorf("%d %v", code, out)
		}
	}
	code, out := s.call(token, "GET", "/whoami", "")
	if code != 401 || !strings.Contains(fmt.Sprint(out), "it has been revoked") {
		t.Errorf("%d %v", code, out)
	}
	s.hear(1)
	if code, out := s.call(owner, "GET", "/audit?decision=revoke", ""); code != 200 || len(out["items"].([]any)) != 1 || out["items"].([]any)[0].(map[string]any)["resource"] != "Token::"+id {
		t.Errorf("%d %v", code, out)
	}
	again := siteOf(t, s.reopen(t))
	if code, _ := again.call(token, "GET", "/whoami", ""); code != 401 {
		t.Errorf("after opening again: %d", code)
	}
	if _, list := again.call(owner, "GET", "/tokens", ""); strings.Contains(fmt.Sprint(list), token) || !strings.Contains(fmt.Sprint(list), "revoked_at") {
		t.Errorf("%v", list)
	}
}

func TestDiscovery(t *testing.T) {
	s := openSite(t)
	if err := s.Reached(t.Context(), "https://ci.example.org/"); err != nil {
		t.Fatal(err)
	}
	code, d := s.call("", "GET", "/.well-known/openid-configuration", "")
	if code != 200 || d["issuer"] != "https://ci.example.org" || d["jwks_uri"] != "https://ci.example.org/.well-known/jwks.json" {
		t.Fatalf("%d %v", code, d)
	}
	code, keys := s.call("", "GET", "/.well-known/jwks.json", "")
	raw, err := json.Marshal(keys)
	if err != nil || code != 200 {
		t.Fatal(code, err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(raw, &set); err != nil || len(set.Keys) != 1 || !set.Keys[0].IsPublic() || !set.Keys[0].Valid() {
		t.Fatalf("%s: %v", raw, err)
	}
	token := s.token("acme", "job:read")
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := signed.Verify(&set) // what another party does with what is published
	if err != nil || !strings.Contains(string(payload), `"iss":"https://ci.example.org"`) {
		t.Errorf("%s, %v", payload, err)
	}
	for _, bad := range []string{"", "ci.example.org", "ftp://x", "https://u:p@x", "https://x?y", "https://"} {
		if s.Reached(t.Context(), bad) == nil {
			t.Errorf("%q is taken for a URL", bad)
		}
	}
}

func TestSecrets(t *testing.T) {
	s := openSite(t)
	const value = "hunter2-hunter2"
	owner, acme := s.ownerToken(t), s.token("acme", "secret:*")
	if code, out := s.call(owner, "PUT", "/secrets/NPM_TOKEN", `{"value":"`+value+`"}`); code != 201 || out["name"] != "NPM_TOKEN" {
		t.Fatalf("%d %v", code, out)
	}
	s.clock.add(time.Second)
	if code, out := s.call(owner, "PUT", "/secrets/NPM_TOKEN", `{"value":"`+value+`"}`); code != 200 || out["created_at"] == out["updated_at"] {
		t.Errorf("%d %v", code, out)
	}
	if code, _ := s.call(acme, "PUT", "/secrets/NPM_TOKEN", `{"value":"acme's"}`); code != 201 {
		t.Errorf("%d", code)
	}
	for _, c := range []struct {
		method, target, body string
		code                 int
		says                 string
	}{
		{"PUT", "/secrets/1", `{"value":"hunter2"}`, 422, "path.name"},
		{"PUT", "/secrets/a-b", `{"value":"hunter2"}`, 422, "path.name"},
		{"PUT", "/secrets/a-b", `{"value":""}`, 422, "path.name"},
		{"PUT", "/secrets/a-b", `{"value":""}`, 422, "body.value"},
		{"PUT", "/secrets/a-b", `{"value":["hunter2"]}`, 422, "path.name"},
		{"PUT", "/secrets/a-b", `{"value":["hunter2"]}`, 422, "body.value"},
		{"PUT", "/secrets/a-b", `{"value":"` + strings.Repeat("hunter2", 10_000) + `"}`, 422, "path.name"},
		{"PUT", "/secrets/a-b", `{"value":"` + strings.Repeat("hunter2", 10_000) + `"}`, 422, "at most 65536 bytes"},
		{"PUT", "/secrets/FRAGUA_X", `{"value":"hunter2"}`, 422, "path.name"},
		{"PUT", "/secrets/A", `{"value":""}`, 422, "body.value"},
		{"PUT", "/secrets/A", `{"value":null}`, 422, "body.value"},
		{"PUT", "/secrets/A", `{"value":["hunter2"]}`, 422, "body.value"},
		{"PUT", "/secrets/A", `{"value":"hunter2","valu":"hunter2"}`, 422, "body.valu"},
		{"PUT", "/secrets/A", `{"value":"hunter2","value":"hunter2"}`, 400, "body.value"},
		{"PUT", "/secrets/A", `{"value":"hunter2`, 400, "body.value"},
		{"PUT", "/secrets/A", `hunter2`, 400, "body"},
		{"PUT", "/secrets/A", `{"value":"` + strings.Repeat("hunter2", 10_000) + `"}`, 422, "at most 65536 bytes"},
		{"DELETE", "/secrets/NONE", "", 404, "no such secret"},
	} {
		code, out := s.call(owner, c.method, c.target, c.body)
		if text := fmt.Sprint(out); code != c.code || !strings.Contains(text, c.says) || strings.Contains(text, "hunter2") {
			t.Errorf("%s %.60s: %d %.300s", c.target, c.body, code, text)
		}
	}
	code, list := s.call(owner, "GET", "/secrets", "")
	if text := fmt.Sprint(list); code != 200 || len(list["items"].([]any)) != 1 || strings.Contains(text, "hunter2") {
		t.Errorf("%d %s", code, text)
	}
	if code, _ := s.call(s.token(Home, "secret:write"), "GET", "/secrets", ""); code != 403 {
		t.Errorf("listed without scope: %d", code)
	}
	got, err := s.Vault().Reveal(t.Context(), Home, []string{"NPM_TOKEN"})
	if err != nil || got["NPM_TOKEN"] != value {
		t.Errorf("%v, %v", got, err)
	}
	if code, _ := s.call(acme, "DELETE", "/secrets/NPM_TOKEN", ""); code != 204 {
		t.Errorf("%d", code)
	}
	again := s.reopen(t)
	if got, err := again.Vault().Reveal(t.Context(), Home, []string{"NPM_TOKEN"}); err != nil || got["NPM_TOKEN"] != value {
		t.Errorf("after opening again: %v, %v", got, err)
	}
	if strings.Contains(s.logs.String(), "hunter2") {
		t.Error("a secret is in the log")
	}
	again.Close()
	files, err := filepath.Glob(filepath.Join(s.cfg.Dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err != nil || strings.Contains(string(b), "hunter2") {
			t.Errorf("%s holds a secret as it is: %v", filepath.Base(f), err)
		}
	}
}

func TestAudit(t *testing.T) {
	s := openSite(t)
	owner, acme := s.ownerToken(t), s.token("acme", "audit:read")
	start := s.clock.now()
	for i := range 5 {
		s.clock.add(time.Second)
		s.call(owner, "PUT", fmt.Sprintf("/secrets/S%d", i), `{"value":"v"}`)
		s.call(acme, "PUT", "/secrets/S", `{"value":"v"}`)
	}
	s.hear(3)
	read := func(token, query string) []map[string]any {
		t.Helper()
		code, out := s.call(token, "GET", "/audit?"+query, "")
		if code != 200 {
			t.Fatalf("%s: %d %v", query, code, out)
		}
		var items []map[string]any
		for _, i := range out["items"].([]any) {
			items = append(items, i.(map[string]any))
		}
		return items
	}
	mine := read(owner, "")
	if len(mine) != 5 {
		t.Fatalf("%d records, want 5, once each: %v", len(mine), mine)
	}
	for i, m := range mine {
		if m["resource"] != fmt.Sprintf("Secret::S%d", 4-i) || m["decision"] != "permit" || m["principal"] != "owner" || m["action"] != "Secret::write" || fmt.Sprint(m["policies"]) != "[secret-write]" || m["tenant_id"] != "default" {
			t.Errorf("%d: %v", i, m)
		}
	}
	theirs := read(acme, "")
	if len(theirs) != 5 || theirs[0]["decision"] != "deny" || theirs[0]["reason"] != "scope secret:write is missing" || theirs[0]["tenant_id"] != "acme" {
		t.Errorf("%v", theirs)
	}
	for query, n := range map[string]int{
		"action=Secret::write": 5, "action=Job::read": 0, "principal=owner": 5, "principal=x": 0, "decision=permit": 5, "decision=deny": 0,
		"since=" + start.Add(3*time.Second).Format(time.RFC3339): 3, "principal=owner&action=Secret::write&decision=permit&limit=2": 2,
	} {
		if got := len(read(owner, query)); got != n {
			t.Errorf("%s: %d, want %d", query, got, n)
		}
	}
	var all []string
	for query := "limit=2"; ; {
		_, out := s.call(owner, "GET", "/audit?"+query, "")
		for _, i := range out["items"].([]any) {
			all = append(all, i.(map[string]any)["resource"].(string))
		}
		next, more := out["next_cursor"]
		if !more {
			break
		}
		query = "limit=2&cursor=" + next.(string)
	}
	if !slices.Equal(all, []string{"Secret::S4", "Secret::S3", "Secret::S2", "Secret::S1", "Secret::S0"}) {
		t.Errorf("page by page: %v", all)
	}
	for _, q := range []string{"cursor=x", "cursor=9.x", "cursor=1.", "cursor=1.a%27"} {
		if code, _ := s.call(owner, "GET", "/audit?"+q, ""); code != 422 {
			t.Errorf("%s: %d", q, code)
		}
	}
	if code, _ := s.call(s.token(Home, "job:*"), "GET", "/audit", ""); code != 403 {
		t.Errorf("read without scope: %d", code)
	}
}

// TestNobodyIsLetIn asks every operation without a token, and with one that has
// no scope.
func TestNobodyIsLetIn(t *testing.T) {
	s := openSite(t)
	none := s.token("acme", "node:read")
	for _, op := range [][2]string{{"POST", "/tokens"}, {"GET", "/tokens"}, {"PUT", "/secrets/A"}, {"GET", "/secrets"}, {"GET", "/audit"}} {
		body := ""
		switch op[0] {
		case "POST":
			body = "{}"
		case "PUT":
			body = `{"value":"v"}`
		}
		if code, _ := s.call("", op[0], op[1], body); code != 401 {
			t.Errorf("%s without token: %d", op, code)
		}
		if code, out := s.call(none, op[0], op[1], body); code != 403 || !strings.Contains(fmt.Sprint(out), "is missing") {
			t.Errorf("%s without scope: %d %v", op, code, out)
		}
	}
	if code, _ := s.call(none, "GET", "/whoami", ""); code != 200 {
		t.Errorf("%d", code)
	}
}
