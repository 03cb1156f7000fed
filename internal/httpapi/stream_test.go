package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fragua.dev/fragua/contract/authz"
)

func send(t *testing.T, c *http.Client, method, url string, body io.Reader, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer good")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestStreamsGoOn(t *testing.T) {
	ended := make(chan struct{})
	s := serve(t, func(o *Options) { o.Timeout = 50 * time.Millisecond })
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.ServeHTTP(w, r)
		if r.URL.Path == "/events" {
			close(ended)
		}
	}))
	defer srv.Close()

	res := send(t, srv.Client(), "GET", srv.URL+"/things/late", nil) // leaves its deadlines on the connection
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	if res.StatusCode != 503 {
		t.Errorf("a handler that is late: %d", res.StatusCode)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", srv.URL+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer good")
	res, err = srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	line, err := bufio.NewReader(res.Body).ReadString('\n') // flushed, though the handler goes on
	if err != nil || line != "data: 1\n" {
		t.Fatalf("%q, %v", line, err)
	}
	select {
	case <-ended:
		t.Error("the stream ended by itself")
	case <-time.After(4 * 50 * time.Millisecond): // nothing tells that nothing happens
	}
	cancel()
	<-ended
}

// fickle believes a token until it is told not to.
type fickle struct{ revoked atomic.Bool }

func (f *fickle) Verify(ctx context.Context, token string) (authz.Principal, error) {
	if f.revoked.Load() {
		return authz.Principal{}, fmt.Errorf("%w: it has been revoked", authz.ErrBadToken)
	}
	return verifier{}.Verify(ctx, token)
}

func TestStreamsEndWithTheirToken(t *testing.T) {
	tokens := &fickle{}
	s := serve(t, func(o *Options) { o.Verifier, o.Recheck = tokens, time.Millisecond })
	srv := httptest.NewServer(s)
	defer srv.Close()
	res := send(t, srv.Client(), "GET", srv.URL+"/events", nil)
	defer res.Body.Close()
	in := bufio.NewReader(res.Body)
	if line, err := in.ReadString('\n'); err != nil || line != "data: 1\n" {
		t.Fatalf("%q, %v", line, err)
	}
	tokens.revoked.Store(true)
	defer time.AfterFunc(20*time.Second, func() { res.Body.Close() }).Stop()
	if rest, err := io.ReadAll(in); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the stream of a revoked token ended with %q, %v", rest, err)
	}
}

func TestHeadOfAStreamEnds(t *testing.T) {
	s := serve(t)
	srv := httptest.NewServer(s)
	defer srv.Close()
	res := send(t, srv.Client(), "HEAD", srv.URL+"/events", nil)
	res.Body.Close()
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
}

// TestBodies sends bodies whose length nobody says in advance.
func TestBodies(t *testing.T) {
	s := serve(t, func(o *Options) { o.MaxBody = 1000 })
	srv := httptest.NewServer(s)
	defer srv.Close()
	long := func() io.Reader {
		return io.MultiReader(strings.NewReader(`{"name":"x`), bytes.NewReader(bytes.Repeat([]byte("x"), 5000)))
	}

	res := send(t, srv.Client(), "POST", srv.URL+"/things", long(), "Accept", "text/event-stream") // a stream of answers is none of questions
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != 413 || !strings.Contains(string(body), "larger than 1000 bytes") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	res = send(t, srv.Client(), "POST", srv.URL+"/artifacts", long(), "Content-Type", "application/octet-stream", "Content-Encoding", "zstd")
	body, _ = io.ReadAll(res.Body)
	res.Body.Close()
	if string(body) != "5010<nil> false" && string(body) != "5010 <nil> false" {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestABodyThatBreaksOff(t *testing.T) {
	s := serve(t)
	srv := httptest.NewServer(s)
	defer srv.Close()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "POST /things HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	c.(*net.TCPConn).CloseWrite()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var p Problem
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil || res.StatusCode != 400 || p.Detail != "the body broke off" {
		t.Errorf("%d %+v %v", res.StatusCode, p, err)
	}
	if s.log.String() != "" {
		t.Errorf("logged: %s", s.log)
	}
}

// TestASlowBodyIsCutOff holds a connection open without sending what it said.
func TestASlowBodyIsCutOff(t *testing.T) {
	s := serve(t, func(o *Options) { o.Timeout = 100 * time.Millisecond })
	srv := httptest.NewServer(s)
	defer srv.Close()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "POST /things HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 408 {
		t.Errorf("%d", res.StatusCode)
	}
}

// TestABodyThatStandsStillIsAnswered sends no more than the beginning of a body, and
// listens: net/http itself reads on after a handler before it answers.
func TestABodyThatStandsStillIsAnswered(t *testing.T) {
	s := serve(t, func(o *Options) { o.Timeout = 100 * time.Millisecond })
	srv := httptest.NewServer(s)
	defer srv.Close()
	for head, want := range map[string]int{
		"POST /artifacts HTTP/1.1\r\nAuthorization: Bearer good\r\nContent-Length: 1000\r\n":       408,
		"POST /artifacts HTTP/1.1\r\nAuthorization: Bearer good\r\nContent-Length: 1000000\r\n":    408,
		"POST /artifacts HTTP/1.1\r\nAuthorization: Bearer good\r\nTransfer-Encoding: chunked\r\n": 408,
		"POST /artifacts HTTP/1.1\r\nAuthorization: Bearer bad\r\nContent-Length: 1000\r\n":        401,
		"POST /nothing HTTP/1.1\r\nAuthorization: Bearer good\r\nContent-Length: 1000\r\n":         404,
	} {
		for _, sent := range []string{"", "5"} {
			c, err := net.Dial("tcp", srv.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, head+"Host: x\r\n\r\n"+sent)
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Errorf("%q and %q: %v", head, sent, err)
			} else if res.Body.Close(); res.StatusCode != want || res.Header.Get("Content-Type") != mediaProblem || !res.Close {
				t.Errorf("%q and %q: %d %v", head, sent, res.StatusCode, res.Header)
			}
			c.Close()
		}
	}
}

func TestHalfAnAnswerBreaksOff(t *testing.T) {
	s := serve(t)
	srv := httptest.NewUnstartedServer(s)
	srv.Start()
	defer srv.Close()
	r, err := http.NewRequest("GET", srv.URL+"/half", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer good")
	res, err := srv.Client().Do(r)
	if err == nil {
		_, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	if err == nil {
		t.Error("half an answer looks whole")
	}
	if !strings.Contains(s.log.String(), "in the middle") {
		t.Error("not logged")
	}
}

func TestDescription(t *testing.T) {
	s := serve(t)
	w := s.do("GET", "/openapi.json", "", "Authorization", "")
	var d struct {
		OpenAPI  string
		Info     struct{ Title, Version string }
		Security []map[string][]string
		Paths    map[string]map[string]struct {
			Responses map[string]struct {
				Content map[string]any
			}
		}
		Components struct {
			Schemas         map[string]struct{ Properties map[string]any }
			SecuritySchemes map[string]struct{ Scheme string }
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if d.OpenAPI != "3.1.0" || d.Info.Title != "Fragua" || d.Info.Version != "1.2.3" || len(d.Security) != 1 || d.Components.SecuritySchemes["bearer"].Scheme != "bearer" {
		t.Errorf("%+v", d)
	}
	if d.Paths["/things"]["post"].Responses["default"].Content[mediaProblem] == nil {
		t.Errorf("errors are not described: %+v", d.Paths["/things"]["post"])
	}
	if _, ok := d.Components.Schemas["Thing"].Properties["$schema"]; ok || strings.Contains(w.Body.String(), "$schema") {
		t.Error("schemas hold links to themselves")
	}
	if w := s.do("GET", "/openapi.yaml", "", "Authorization", ""); w.Code != 200 || !strings.Contains(w.Body.String(), "title: Fragua") {
		t.Errorf("%d %.100s", w.Code, w.Body)
	}
	w = s.do("GET", "/docs", "", "Authorization", "")
	page := w.Body.String()
	if w.Code != 200 || !strings.Contains(page, "Make a thing") || !strings.Contains(page, "/things/{id}") {
		t.Errorf("%d %.300s", w.Code, page)
	}
	if strings.Contains(page, "http://") || strings.Contains(page, "https://") || strings.Contains(page, "<script") {
		t.Error("the page needs another host, or scripts")
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("policy %q", csp)
	}
	if w := s.do("GET", "/docs/docs.css", "", "Authorization", ""); w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/css") {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

// TestClientsThatStandStill reads nothing of an answer, and sends nothing of a body.
func TestClientsThatStandStill(t *testing.T) {
	for _, head := range []string{
		"GET /logs/flood HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\n\r\n",
		"POST /artifacts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\nContent-Length: 100\r\n\r\nx",
	} {
		s := serve(t, func(o *Options) { o.Timeout = 50 * time.Millisecond })
		srv := httptest.NewServer(s)
		c, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, head)
		select {
		case err := <-s.ended:
			if n, ok := errors.AsType[net.Error](err); !ok || !n.Timeout() {
				t.Errorf("%.20s: ended by %v", head, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%.20s: waits without end", head)
		}
		c.Close()
		srv.Close()
	}
}

func TestLongDownload(t *testing.T) {
	s := serve(t)
	srv := httptest.NewServer(s)
	defer srv.Close()
	res := send(t, srv.Client(), "GET", srv.URL+"/artifacts/a/b/1/content", nil)
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); n != 2*piece+1 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}
