package security

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
)

// make makes a token with token, and returns it and its id.
func (s *site) make(token, body string) (made, id string) {
	s.t.Helper()
	code, out := s.call(token, "POST", "/tokens", body)
	if code != 201 {
		s.t.Fatalf("%s: %d %v", body, code, out)
	}
	return out["token"].(string), out["token_id"].(string)
}

// lives says whether token is let in.
func (s *site) lives(token string) bool {
	s.t.Helper()
	code, _ := s.call(token, "GET", "/whoami", "")
	return code == 200
}

func TestRevokeNeedsTheScopes(t *testing.T) {
	s := openSite(t)
	owner := s.ownerToken(t)
	p, err := s.Verify(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	weak, weakID := s.make(owner, `{"scopes":["token:create"]}`)
	strong, strongID := s.make(owner, `{"scopes":["job:*","token:create"]}`)
	for _, id := range []string{p.Token, strongID} {
		code, out := s.call(weak, "DELETE", "/tokens/"+id, "")
		if code != 403 || !strings.Contains(fmt.Sprint(out["detail"]), "scopes that it lacks") || out["decision_id"] == "" {
			t.Errorf("%d %v", code, out)
		}
	}
	if !s.lives(owner) || !s.lives(strong) {
		t.Error("a weak token revoked a stronger one")
	}
	s.hear(1)
	if _, out := s.call(owner, "GET", "/audit?action=Token::revoke", ""); len(out["items"].([]any)) != 2 || !strings.Contains(fmt.Sprint(out), "resource:Token::"+p.Token) {
		t.Errorf("want one denial for each, by its name: %v", out)
	}
	if code, out := s.call(weak, "DELETE", "/tokens/"+weakID, ""); code != 204 || s.lives(weak) {
		t.Errorf("its own: %d %v", code, out)
	}
	child, _ := s.make(strong, `{"scopes":["job:read","token:create"]}`)
	if code, _ := s.call(child, "DELETE", "/tokens/"+strongID, ""); code != 403 {
		t.Errorf("the token that it was made with: %d", code)
	}
	if code, _ := s.call(strong, "DELETE", "/tokens/"+strongID, ""); code != 204 {
		t.Errorf("its own: %d", code)
	}
}

func TestRevokeTakesWhatWasMadeWithIt(t *testing.T) {
	s := openSite(t)
	owner := s.ownerToken(t)
	parent, id := s.make(owner, `{"scopes":["*"]}`)
	other, _ := s.make(owner, `{"scopes":["job:read"]}`)
	child, childID := s.make(parent, `{"scopes":["token:create","job:read"]}`)
	grandchild, _ := s.make(child, `{"scopes":["job:read"]}`)
	away, _ := s.make(parent, `{"tenant_id":"acme","scopes":["job:read","audit:read"]}`)
	if !s.lives(child) || !s.lives(grandchild) || !s.lives(away) {
		t.Fatal("what was made is refused")
	}
	if code, out := s.call(owner, "DELETE", "/tokens/"+id, ""); code != 204 {
		t.Fatalf("%d %v", code, out)
	}
	check := func(s *site) {
		t.Helper()
		for name, token := range map[string]string{"the token": parent, "its child": child, "the child's": grandchild, "another tenant's": away} {
			if s.lives(token) {
				t.Errorf("%s is let in", name)
			}
		}
		if !s.lives(other) || !s.lives(owner) {
			t.Error("one that was made without it is refused")
		}
	}
	check(s)
	said := 0
	rows, err := s.db.Outbox(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if row.Event.Subject == event.AuthRevoked.Subject {
			said++
		}
	}
	s.hear(1)
	_, trail := s.call(owner, "GET", "/audit?decision=revoke", "")
	if items := trail["items"].([]any); said != 4 || len(items) != 3 || !strings.Contains(fmt.Sprint(items), "Token::"+childID) {
		t.Errorf("%d told, %v", said, items)
	}
	check(siteOf(t, s.reopen(t)))
}

// TestNothingIsMadeWithTheRevoked holds for a call that was let in before.
func TestNothingIsMadeWithTheRevoked(t *testing.T) {
	s := openSite(t)
	owner := s.ownerToken(t)
	parent, id := s.make(owner, `{"scopes":["token:create"]}`)
	p, err := s.Verify(t.Context(), parent)
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := s.call(owner, "DELETE", "/tokens/"+id, ""); code != 204 {
		t.Fatal(code)
	}
	_, err = s.createToken(authz.With(t.Context(), p), &struct{ Body tokenOrder }{tokenOrder{TTL: time.Minute.Milliseconds()}})
	if err == nil || !strings.Contains(err.Error(), "has been revoked") {
		t.Error(err)
	}
}
