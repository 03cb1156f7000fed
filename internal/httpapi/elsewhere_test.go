package httpapi

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
)

// way leads to another process's handler over HTTP, whatever the URL says.
type way struct{ to *url.URL }

func (w way) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.to == nil {
		return nil, errors.New("nobody listens")
	}
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host = "http", w.to.Host
	return http.DefaultTransport.RoundTrip(out)
}

// plan registers what a room would.
func plan(api huma.API) {
	for _, op := range []huma.Operation{
		{OperationID: "far-put", Method: http.MethodPut, Path: "/far/{id}"}, {OperationID: "far-logs", Method: http.MethodGet, Path: "/logs/{id}"},
	} {
		huma.Register(api, op, func(context.Context, *struct {
			ID string `path:"id"`
		}) (*struct{}, error) {
			panic("this handler is of another process")
		})
	}
}

func TestOperationsElsewhere(t *testing.T) {
	more := make(chan struct{})
	there := http.NewServeMux()
	there.HandleFunc("PUT /far/{id}", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if r.PathValue("id") == "1" {
			return // of what is too much, a part
		}
		if err != nil || r.PathValue("id") != "a/b" || r.Header.Get("X-Correlation-Id") == "" || r.Header.Get("Authorization") != "Bearer good" || r.URL.RawQuery != "x=1" {
			t.Errorf("%s %v with %d bytes, %v", r.URL, r.Header, len(b), err)
		}
		w.Header().Set("X-Correlation-Id", r.Header.Get("X-Correlation-Id"))
		w.Header().Set("Cache-Control", "max-age=1")
		w.WriteHeader(http.StatusAccepted)
		w.Write(b)
	})
	there.HandleFunc("GET /logs/{id}", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "one\n")
		http.NewResponseController(w).Flush()
		<-more
		io.WriteString(w, "two\n")
	})
	other := httptest.NewServer(there)
	defer other.Close()
	to, err := url.Parse(other.URL)
	if err != nil {
		t.Fatal(err)
	}
	serve := func(to way) *httptest.Server {
		mux := http.NewServeMux()
		api := New(mux, "1")
		plan(Elsewhere(api, mux, "execution", to))
		if api.OpenAPI().Paths["/far/{id}"] == nil {
			t.Error("it is not described")
		}
		s := httptest.NewServer(Handler(mux, Options{Verifier: verifier{}, MaxBody: 1 << 10}))
		t.Cleanup(s.Close)
		return s
	}

	front := serve(way{to})
	resp := send(t, front.Client(), "PUT", front.URL+"/far/a%2Fb?x=1", strings.NewReader("hello"))
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusAccepted || string(body) != "hello" {
		t.Errorf("%s %q, %v", resp.Status, body, err)
	}
	for name, values := range resp.Header {
		if len(values) > 1 {
			t.Errorf("%s comes %d times", name, len(values))
		}
	}
	if got := resp.Header.Get("Cache-Control"); got != "max-age=1" {
		t.Errorf("the other process's header became %q", got)
	}

	resp = send(t, front.Client(), "GET", front.URL+"/logs/x?follow=true", nil)
	lines := bufio.NewReader(resp.Body)
	if line, err := lines.ReadString('\n'); line != "one\n" {
		t.Errorf("%q, %v", line, err) // it would wait for ever if it were held back
	}
	close(more)
	if line, err := lines.ReadString('\n'); line != "two\n" {
		t.Errorf("%q, %v", line, err)
	}

	if resp := send(t, front.Client(), "PUT", front.URL+"/far/1", io.LimitReader(zeros{}, 5000)); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("too much: %s", resp.Status)
	}
	if resp := send(t, front.Client(), "PUT", front.URL+"/far/1", nil, "Authorization", "Bearer old"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a token that has expired: %s", resp.Status)
	}
	alone := serve(way{})
	resp = send(t, alone.Client(), "PUT", alone.URL+"/far/1", nil)
	body, _ = io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "1" || !strings.Contains(string(body), "the execution service is away") {
		t.Errorf("away: %s %v %s", resp.Status, resp.Header, body)
	}
	if resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Error("an answer of this process lacks its headers")
	}
}
