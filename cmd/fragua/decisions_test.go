package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// inPath is a name in a path that the caller chooses.
var inPath = regexp.MustCompile(`\{[a-z_]+\}`)

// TestCallsThatComeToNothingAreDecided walks all operations with a name in their path,
// which nothing bears. Who lacks the scope must not learn that; for who has it, the
// decision is in the audit trail. So it is for a call that is refused.
func TestCallsThatComeToNothingAreDecided(t *testing.T) {
	data := t.TempDir()
	h, err := openHouse(t.Context(), Settings{Data: data, Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	call := func(token, method, path, body string) (int, []byte) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, h.URL()+path, bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, b
	}
	read, err := os.ReadFile(filepath.Join(data, "owner.token"))
	if err != nil {
		t.Fatal(err)
	}
	owner := strings.TrimSpace(string(read))
	var minted struct{ Token string }
	if status, b := call(owner, "POST", "/tokens", `{"scopes":["event:read"]}`); status != http.StatusCreated || json.Unmarshal(b, &minted) != nil {
		t.Fatalf("a token: %d %s", status, b)
	}
	var api struct {
		Paths map[string]map[string]json.RawMessage
	}
	if _, b := call(owner, "GET", "/openapi.json", ""); json.Unmarshal(b, &api) != nil {
		t.Fatalf("the API: %s", b)
	}
	before := decisions(t, call, owner)
	if status, b := call(owner, "POST", "/tokens", `{"scopes":["job:read"],"ttl_ms":315360000000}`); status != http.StatusForbidden {
		t.Errorf("a token that lives longer than its maker's: %d %.200s", status, b)
	}
	if n := decisions(t, call, owner) - before; n != 1 { // of reading the trail
		t.Errorf("a token that was denied left %d permits", n-1)
	}
	const pipeline = `{"spec":{"name":"n","jobs":{"a":{"command":["true"]}}}}`
	another := strings.Replace(pipeline, "true", "false", 1)
	for _, c := range []struct {
		body string
		want int
	}{{pipeline, http.StatusCreated}, {another, http.StatusConflict}} {
		before := decisions(t, call, owner)
		if status, b := call(owner, "POST", "/pipelines", `{"pipeline_id":"p",`+c.body[1:]); status != c.want {
			t.Errorf("a pipeline: %d %.200s, want %d", status, b, c.want)
		}
		if n := decisions(t, call, owner) - before; n != 2 { // its own, and of reading the trail
			t.Errorf("a pipeline that was answered %d left %d decisions, want 1", c.want, n-1)
		}
	}
	bodies := map[string]string{
		"PUT /pipelines/{id}": pipeline,
		"POST /artifacts/{repository}/{name}/{version}/promote":     `{"env":"prod"}`,
		"PUT /artifacts/{repository}/{name}/{version}/dependencies": `{"items":[]}`,
	}
	makes := []string{"PUT /secrets/{name}"} // it is about what is not there yet
	tried := 0
	for path, operations := range api.Paths {
		if !inPath.MatchString(path) {
			continue
		}
		for method := range operations {
			name := strings.ToUpper(method) + " " + path
			if !slices.Contains([]string{"get", "put", "post", "delete", "patch"}, method) || slices.Contains(makes, name) {
				continue
			}
			tried++
			at := inPath.ReplaceAllString(path, "nothing")
			if status, b := call(minted.Token, strings.ToUpper(method), at, bodies[name]); status != http.StatusForbidden {
				t.Errorf("%s without a scope for it: %d %.200s", name, status, b)
			}
			before := decisions(t, call, owner)
			if status, b := call(owner, strings.ToUpper(method), at, bodies[name]); status != http.StatusNotFound {
				t.Errorf("%s: %d %.200s", name, status, b)
			}
			if n := decisions(t, call, owner) - before; n != 2 { // its own, and of reading the trail
				t.Errorf("%s left %d decisions, want 1", name, n-1)
			}
		}
	}
	if tried < 20 {
		t.Errorf("%d operations were tried; are there so few?", tried)
	}
}

// decisions returns how many permits the audit trail has.
func decisions(t *testing.T, call func(token, method, path, body string) (int, []byte), token string) int {
	t.Helper()
	n := 0
	for cursor := ""; ; {
		var page struct {
			Items []json.RawMessage `json:"items"`
			Next  string            `json:"next_cursor"`
		}
		status, b := call(token, "GET", "/audit?decision=permit&limit=1000&cursor="+cursor, "")
		if status != http.StatusOK || json.Unmarshal(b, &page) != nil {
			t.Fatalf("the audit trail: %d %s", status, b)
		}
		if n += len(page.Items); page.Next == "" {
			return n
		}
		cursor = page.Next
	}
}
