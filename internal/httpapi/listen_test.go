package httpapi

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestWhatCannotBeReadIsAProblem sends what net/http refuses before any handler.
func TestWhatCannotBeReadIsAProblem(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "a handler's own words", http.StatusTeapot)
	}))
	s.Config.MaxHeaderBytes = 4 << 10
	s.Listener = Listener(s.Listener)
	s.Start()
	defer s.Close()
	for name, c := range map[string]struct {
		request string
		status  int
		detail  string
	}{
		"no HTTP":                   {"hello\r\n\r\n", 400, "cannot be read"},
		"no host":                   {"GET / HTTP/1.1\r\n\r\n", 400, "missing required Host header"},
		"a header without a name":   {"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n", 400, "cannot be read"},
		"an unknown version":        {"GET / HTTP/3.0\r\nHost: x\r\n\r\n", 400, "version of HTTP"},
		"an unknown encoding":       {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gold\r\n\r\n", 400, "transfer encoding"},
		"an unknown expectation":    {"GET / HTTP/1.1\r\nHost: x\r\nExpect: gold\r\n\r\n", 417, "want 100-continue"},
		"headers that are too long": {"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", 431, "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			resp := say(t, s.Listener.Addr().String(), c.request)
			var p Problem
			if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
				t.Fatalf("%s: %v", resp.Status, err)
			}
			if resp.StatusCode != c.status || p.Status != c.status || resp.Header.Get("Content-Type") != mediaProblem || !strings.Contains(p.Detail, c.detail) {
				t.Errorf("%s, %s: %+v", resp.Status, resp.Header.Get("Content-Type"), p)
			}
			if strings.Contains(p.Detail, "gold") {
				t.Error("the value is told")
			}
		})
	}
	if resp := say(t, s.Listener.Addr().String(), "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); resp.StatusCode != http.StatusTeapot ||
		!strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("a handler's answer became %s, %s", resp.Status, resp.Header.Get("Content-Type"))
	}
}

func say(t *testing.T, address, request string) *http.Response {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprint(c, request)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
