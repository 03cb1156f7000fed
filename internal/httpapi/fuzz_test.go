package httpapi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzBody looks for a body that the server cannot answer well.
func FuzzBody(f *testing.F) {
	s := serve(f)
	for _, b := range []string{`{"name":"x"}`, `{"name":"x","count":1e999,"env":{"a":"b"},"list":[{"flag":true}]}`, `{"a":1,"a":2}`, "\xff", `"\ud800"`, `[[[[`, `{"since":"2026-01-01T00:00:00Z"}`, `{"name":"\u0000"}`, ` `} {
		f.Add(b, "application/json")
	}
	f.Add(`{}`, "application/json;charset=\"utf-8\"")
	f.Add(`{}`, "+;+")
	f.Fuzz(func(t *testing.T, body, contentType string) {
		w := s.do("POST", "/things", body, "Content-Type", contentType)
		check(t, s, w, body)
		if w.Code == http.StatusCreated && body != "" {
			var v map[string]any
			if err := json.Unmarshal([]byte(body), &v); err != nil {
				t.Errorf("read what is not JSON: %q", body)
			}
		}
	})
}

// FuzzTarget looks for an address, a method or a header that the server cannot
// answer well.
func FuzzTarget(f *testing.F) {
	s := serve(f)
	for _, q := range []string{"/things?limit=1", "/things?limit=%zz&since=x", "//", "/things/%2e%2e", "/things?names=a,b,c&deep", "/docs", "/\x00", "/things?a=b;c", "/events?x"} {
		f.Add("GET", q, "X-Correlation-Id", "x")
	}
	f.Add("OPTIONS", "*", "Traceparent", "00-x")
	f.Add("HEAD", "/things", "Authorization", "Bearer")
	f.Fuzz(func(t *testing.T, method, target, header, value string) {
		if method == "" || strings.HasPrefix(target, "/things/") || strings.HasPrefix(target, "/half") || strings.HasPrefix(target, "/events") || strings.HasPrefix(target, "/logs/") {
			return // these fail, or go on, because a test wants them to
		}
		w := s.do(method, target, "", header, value)
		check(t, s, w, target)
	})
}

func check(t *testing.T, s *server, w *httptest.ResponseRecorder, in string) {
	t.Helper()
	if w.Code >= 500 && !strings.Contains(w.Header().Get("Retry-After"), "1") {
		t.Errorf("%d for %q: %s", w.Code, in, s.log)
	}
	if w.Code >= 500 {
		t.Errorf("%d for %q", w.Code, in)
	}
	if w.Code >= 400 && w.Header().Get("Content-Type") != mediaProblem {
		t.Errorf("%d for %q is %s", w.Code, in, w.Header().Get("Content-Type"))
	}
	if len(in) > 12 && w.Code >= 400 && w.Code != 422 && strings.Contains(w.Body.String(), in) {
		t.Errorf("%d repeats %q", w.Code, in)
	}
}

func BenchmarkCreate(b *testing.B) {
	s := serve(b)
	body := `{"name":"x","count":3,"env":{"A":"1","B":"2"},"tags":["a","b"],"list":[{"flag":true,"text":"abc"}]}`
	b.ReportAllocs()
	for b.Loop() {
		if w := s.do("POST", "/things", body); w.Code != http.StatusCreated {
			b.Fatal(w.Body)
		}
	}
}

func BenchmarkHandler(b *testing.B) {
	h := Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }), Options{Verifier: verifier{}})
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("GET", "/x", nil)
		r.Header.Set("Authorization", "Bearer good")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
	}
}
