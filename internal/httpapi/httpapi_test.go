package httpapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestStatuses(t *testing.T) {
	s := serve(t)
	for _, c := range []struct {
		method, target, body string
		headers              []string
		status               int
		detail               string
	}{
		{"POST", "/things", `{"name":"x"}`, nil, 201, ""},
		{"GET", "/things", "", nil, 200, ""},
		{"HEAD", "/things", "", nil, 200, ""},
		{"POST", "/things", `{"name":`, nil, 400, "the body cannot be read"},
		{"POST", "/things", "", nil, 400, "request body is required"},
		{"GET", "/things/bad", "", nil, 400, "what?"},
		{"GET", "/things?x=%zz", "", nil, 400, "the query cannot be read"},
		{"GET", "/things?x=%00", "", nil, 400, "control characters"},
		{"GET", "/things?x=%ff", "", nil, 400, "not UTF-8"},
		{"GET", "/things?a;b", "", nil, 400, "the query cannot be read"},
		{"GET", "/things/\x00", "", nil, 400, "control characters"},
		{"GET", "/things/\xff", "", nil, 400, "not UTF-8"},
		{"GET", "/things", "", []string{"Authorization", ""}, 401, "send a token"},
		{"GET", "/things", "", []string{"Authorization", "Bearer old"}, 401, "it has expired"},
		{"GET", "/things", "", []string{"Authorization", "Basic good"}, 401, "not valid"},
		{"GET", "/things", "", []string{"Authorization", "Bearer"}, 401, "not valid"},
		{"GET", "/things", "", []string{"Authorization", "Bearer nobody"}, 401, "not valid"},
		{"GET", "/things", "", []string{"Authorization", "Bearer " + strings.Repeat("x", 9000)}, 401, "not valid"},
		{"GET", "/nowhere", "", []string{"Authorization", ""}, 401, "send a token"},
		{"GET", "/things", "", []string{"Authorization", "bearer good"}, 200, ""},
		{"GET", "/things/denied", "", nil, 403, "denied: scope thing:read is missing"},
		{"GET", "/things/obliged", "", nil, 403, "an obligation cannot be met here: dance"},
		{"GET", "/things/passed", "", nil, 200, ""},
		{"GET", "/things/none", "", nil, 404, "no such thing"},
		{"GET", "/nowhere", "", nil, 404, "no such path"},
		{"GET", "//things", "", nil, 404, "no such path"},
		{"GET", "/things/../things", "", nil, 404, "no such path"},
		{"GET", "things", "", nil, 404, "no such path"},
		{"GET", "", "", nil, 404, "no such path"},
		{"DELETE", "/things", "", nil, 405, "Allow says"},
		{"OPTIONS", "/things", "", nil, 405, "Allow says"},
		{"BREW", "/things", "", nil, 405, "Allow says"},
		{"GET", "/things/conflict", "", nil, 409, "it is there"},
		{"POST", "/things", strings.Repeat(" ", 9<<20), nil, 413, "larger than 8388608 bytes"},
		{"GET", "/" + strings.Repeat("x", 5000), "", nil, 414, "too long"},
		{"POST", "/things", `{"name":"x"}`, []string{"Content-Type", "text/plain"}, 415, ""},
		{"POST", "/things", `{"name":"x"}`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, ""},
		{"POST", "/things", `{"name":"x"}`, []string{"Content-Type", "application/json; charset=latin1"}, 415, ""},
		{"POST", "/things", `{"name":"x"}`, []string{"Content-Type", ";+"}, 415, ""},
		{"POST", "/things", `{"name":"x"}`, []string{"Content-Encoding", "gzip"}, 415, "without Content-Encoding"},
		{"POST", "/things", `{"name":"x"}`, []string{"Content-Type", ""}, 201, ""},
		{"POST", "/things", `{"name":"x"}`, []string{"Content-Type", "application/json; charset=UTF-8"}, 201, ""},
		{"POST", "/things", `{"name":"x"}`, []string{"Content-Type", "application/merge-patch+json"}, 201, ""},
		{"POST", "/things", `{}`, nil, 422, "the input is not valid"},
		{"GET", "/things/invalid", "", nil, 422, "the input is not valid"},
		{"GET", "/things?limit=0", "", nil, 422, "the input is not valid"},
		{"GET", "/things?limit=x&since=yesterday&state=maybe&deep=2", "", nil, 422, "the input is not valid"},
		{"GET", "/things/busy", "", nil, 429, "too many"},
		{"GET", "/things/odd", "", nil, 500, "something went wrong"},
		{"GET", "/things/panic", "", nil, 500, "something went wrong"},
		{"GET", "/things/away", "", nil, 503, "not yet"},
		{"GET", "/things/full", "", nil, 503, "disk is full"},
		{"GET", "/things/closed", "", nil, 503, "stopping"},
		{"GET", "/things", "", []string{"Authorization", "Bearer broken"}, 503, "cannot be verified now"},
		{"GET", "/healthz", "", []string{"Authorization", ""}, 200, ""},
		{"POST", "/healthz", "", []string{"Authorization", ""}, 401, ""},
		{"GET", "/things", "", []string{"Accept", "image/png"}, 200, ""},
	} {
		t.Run(fmt.Sprintf("%s %.40q %.20q %.60q", c.method, c.target, c.body, c.headers), func(t *testing.T) {
			w := s.do(c.method, c.target, c.body, c.headers...)
			if c.status < 400 {
				if w.Code != c.status {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
				return
			}
			p := readProblem(t, w, c.status)
			if !strings.Contains(p.Detail, c.detail) {
				t.Errorf("detail %q", p.Detail)
			}
			h := w.Header()
			if got := h.Get("Www-Authenticate") != ""; got != (c.status == 401) {
				t.Errorf("WWW-Authenticate: %v", got)
			}
			if got := h.Get("Retry-After") != ""; got != (c.status == 429 || c.status == 503) {
				t.Errorf("Retry-After: %v", got)
			}
			if got := h.Get("Allow") != ""; got != (c.status == 405) {
				t.Errorf("Allow: %v", got)
			}
			if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" {
				t.Errorf("headers %v", h)
			}
			if strings.Contains(w.Body.String(), "secret detail") {
				t.Errorf("tells too much: %s", w.Body)
			}
		})
	}
	if w := s.do("GET", "/things/busy", ""); w.Header().Get("Retry-After") != "2" {
		t.Errorf("Retry-After %s", w.Header().Get("Retry-After"))
	}
}

func TestFaultsAreLoggedOnce(t *testing.T) {
	for target, want := range map[string]string{"/things/odd": "hunter2", "/things/panic": "secret detail", "/things/full": "disk is full"} {
		s := serve(t)
		s.do("GET", target, "", "X-Correlation-Id", "cor-1")
		if log := s.log.String(); strings.Count(log, want) != 1 || strings.Count(log, "level=") != 1 || !strings.Contains(log, "cor-1") {
			t.Errorf("%s: %s", target, log)
		}
	}
	s := serve(t)
	for _, target := range []string{"/things/none", "/nowhere", "/things/denied", "/things?limit=x", "/things/busy"} {
		s.do("GET", target, "")
	}
	if s.log.String() != "" {
		t.Errorf("what callers do wrong is logged as ours: %s", s.log)
	}
}

func TestFaultsHavePlacesAndNoValues(t *testing.T) {
	s := serve(t)
	const secret = "hunter2-hunter2-hunter2-hunter2"
	for _, c := range []struct {
		body   string
		status int
		places []string
	}{
		{`{"name":"` + secret + `","count":-1,"kind":"` + secret + `","tags":["a","b","c","` + secret + `"],"inner":{"text":"` + secret + `"},"list":[{"flag":true},{"flag":"` + secret + `"}],"since":"` + secret + `"}`,
			422, []string{"body.count", "body.inner.flag", "body.inner.text", "body.kind", "body.list[1].flag", "body.name", "body.since", "body.tags"}},
		{`{"name":"x","colour":"` + secret + `","list":[{"flag":true,"more":"` + secret + `"}]}`, 422, []string{"body.colour", "body.list[0].more"}},
		{`{"Name":"` + secret + `"}`, 422, []string{"body.Name", "body.name"}},
		{`{"name":"x","env":{"A":"` + secret + `","A":"2"}}`, 400, []string{"body.env.A"}},
		{`{"name":"x","list":[{"flag":true},{"flag":true,"flag":false}]}`, 400, []string{"body.list[1].flag"}},
		{`{"name":"x","env":{"0":{"1":[` + secret + `]}}}`, 400, []string{"body.env.0.1[0]"}},
		{`{"name":"x"} ` + secret, 400, []string{"body"}},
		{`{"name":"x"}{"name":"y"}`, 400, []string{"body"}},
		{`{"name":"` + secret + "\xff" + `"}`, 400, []string{"body.name"}},
		{`{"name":"` + secret + "\x00" + `"}`, 400, []string{"body.name"}},
		{`{"name":"x","env":{"A":"` + secret + `\u0000"}}`, 400, []string{"body.env.A"}},
		{`{"name":"` + secret + `\ud800"}`, 400, []string{"body.name"}},
		{`{'name':'` + secret + `'}`, 400, []string{"body"}},
		{`{"name":"x","count":1e400}`, 400, []string{"body.count"}},
		{`{"name":"x","count":9223372036854775808}`, 422, []string{"body.count"}},
		{`{"name":"x","count":1.5}`, 422, []string{"body.count"}},
		{`{"name":"x","count":1e3}`, 422, []string{"body.count"}},
		{`{"name":"x","small":1000}`, 422, []string{"body.small"}},
		{`"` + secret + `"`, 422, []string{"body"}},
		{`null`, 422, []string{"body"}},
		{`[]`, 422, []string{"body"}},
		{strings.Repeat("[", 1000) + strings.Repeat("]", 1000), 400, []string{"body"}},
		{`{"name":"x","inner":` + strings.Repeat(`{"flag":`, 70) + `1` + strings.Repeat(`}`, 70) + `}`, 400, []string{"body"}},
	} {
		w := s.do("POST", "/things", c.body)
		text := w.Body.String()
		p := readProblem(t, w, c.status)
		var places []string
		for _, f := range p.Errors {
			places = append(places, f.Location)
			if f.Message == "" || strings.Contains(f.Message, mark) {
				t.Errorf("%.60s: message %q", c.body, f.Message)
			}
		}
		if !slices.Equal(places, c.places) {
			t.Errorf("%.60s: places %q, want %q", c.body, places, c.places)
		}
		if strings.Contains(text, "hunter2") {
			t.Errorf("%.60s: a value is repeated: %s", c.body, text)
		}
	}
	for _, q := range []string{"limit=hunter2", "state=hunter2", "since=hunter2", "deep=hunter2", "tail=-1", "names=hunter2,b,c", "cursor=" + strings.Repeat("hunter2", 100)} {
		w := s.do("GET", "/things?"+q, "")
		text := w.Body.String()
		p := readProblem(t, w, 422)
		name, _, _ := strings.Cut(q, "=")
		if len(p.Errors) != 1 || p.Errors[0].Location != "query."+name || strings.Contains(text, "hunter2") {
			t.Errorf("%.40s: %s", q, text)
		}
	}
	for q, want := range map[string][]string{
		"colour=hunter2&limit=2&Limit=3": {"query.Limit", "query.colour"}, "colour": {"query.colour"}, "limit=1&limit=2": {"query.limit"},
	} {
		w := s.do("GET", "/things?"+q, "")
		text := w.Body.String()
		var places []string
		for _, f := range readProblem(t, w, 422).Errors {
			places = append(places, f.Location)
		}
		if !slices.Equal(places, want) || strings.Contains(text, "hunter2") {
			t.Errorf("%s: %s", q, text)
		}
	}
	if p := readProblem(t, s.do("GET", "/things?limit=x&since=y&state=z", ""), 422); len(p.Errors) != 3 {
		t.Errorf("not all at once: %+v", p.Errors)
	}
	if p := readProblem(t, s.do("GET", "/things/"+strings.Repeat("x", 11), ""), 422); len(p.Errors) != 1 || p.Errors[0].Location != "path.id" {
		t.Errorf("%+v", p.Errors)
	}
}

func TestAnswersAboutFaultsAreBounded(t *testing.T) {
	s := serve(t)
	var b strings.Builder
	b.WriteString(`{"name":"x"`)
	for i := range 100_000 {
		fmt.Fprintf(&b, `,"k%d":1`, i)
	}
	b.WriteString(`,"` + strings.Repeat("long", 10_000) + `":1}`)
	w := s.do("POST", "/things", b.String())
	if w.Body.Len() > 64<<10 {
		t.Errorf("%d bytes of faults", w.Body.Len())
	}
	p := readProblem(t, w, 422)
	if n := len(p.Errors); n != maxFaults+1 || p.Errors[n-1].Message != "and 99901 more" {
		t.Errorf("%d faults, %+v", n, p.Errors[n-1])
	}
}

func TestWhatIsWritten(t *testing.T) {
	s := serve(t)
	w := s.do("POST", "/things", `{"name":"<x>&","count":9007199254740993,"env":{"B":"2","A":"1"}}`)
	if got := strings.TrimSpace(w.Body.String()); w.Code != 201 || got != `{"name":"<x>&","count":9007199254740993,"env":{"A":"1","B":"2"}}` {
		t.Errorf("%d %s", w.Code, got)
	}
	if w := s.do("GET", "/things?deep", ""); !strings.Contains(w.Body.String(), `{"items":[],"limit":100,"deep":true}`) {
		t.Errorf("%s", w.Body)
	}
}

func TestCorrelationAndTrace(t *testing.T) {
	s := serve(t)
	ask := func(headers ...string) map[string]string {
		w := s.do("GET", "/things/me", "", headers...)
		var m map[string]string
		if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		if w.Header().Get("X-Correlation-Id") != m["correlation"] {
			t.Errorf("the header says %s", w.Header().Get("X-Correlation-Id"))
		}
		return m
	}
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if m := ask("X-Correlation-Id", "cor-1", "Traceparent", trace); m["correlation"] != "cor-1" || m["trace"] != trace || m["sub"] != "owner" {
		t.Errorf("%v", m)
	}
	if m := ask("X-Request-Id", "req.7"); m["correlation"] != "req.7" {
		t.Errorf("%v", m)
	}
	a, b := ask("X-Correlation-Id", "no spaces"), ask("Traceparent", strings.ToUpper(trace))
	for _, m := range []map[string]string{a, b} {
		if !strings.HasPrefix(m["correlation"], "req_") || !validTrace(m["trace"]) {
			t.Errorf("%v", m)
		}
	}
	if a["correlation"] == b["correlation"] || a["trace"] == b["trace"] {
		t.Error("given twice")
	}
	for _, bad := range []string{"", "00", trace + "-x", "01" + trace[2:], "00-" + strings.Repeat("0", 32) + trace[35:], trace[:36] + strings.Repeat("0", 16) + "-01", strings.Replace(trace, "-b7", "_b7", 1)} {
		if validTrace(bad) {
			t.Errorf("%s is let through", bad)
		}
	}
}

func TestDecisionsAreKept(t *testing.T) {
	for target, want := range map[string]string{
		"/things/denied": "AuthorizationDenied", "/things/passed": "AuthGranted", "/things/done": "AuthGranted",
		"/things/refused": "AuthGranted", "/things/dropped": "AuthGranted",
	} {
		s := serve(t)
		s.do("GET", target, "", "X-Correlation-Id", "cor-1")
		rows, err := s.db.Outbox(t.Context(), 0, 10)
		if err != nil || len(rows) != 1 || rows[0].Event.Type != want || rows[0].Event.CorrelationID != "cor-1" || rows[0].Event.Tenant != "default" {
			t.Errorf("%s: %+v, %v", target, rows, err)
		}
	}
	s := serve(t)
	if p := readProblem(t, s.do("GET", "/things/denied", ""), 403); p.Decision != "dec_1" {
		t.Errorf("%+v", p)
	}
	s.db.Close()
	readProblem(t, s.do("GET", "/things/denied", ""), 503)
	readProblem(t, s.do("GET", "/things/passed", ""), 503)
}
