package client

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TestAServerThatIsStartedAgainIsFound has it come back on another port.
func TestAServerThatIsStartedAgainIsFound(t *testing.T) {
	before, after := httptest.NewServer(http.NotFoundHandler()), httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `"here"`)
	}))
	defer after.Close()
	before.Close()
	c := New(before.URL, "")
	asked := 0
	c.Elsewhere(func() string {
		if asked++; asked == 1 {
			return "" // it is starting
		}
		return after.URL
	})
	var got string
	if err := c.Call(t.Context(), "GET", "/", nil, &got); err != nil || got != "here" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestWhatWasCutOffIsAskedAgain has a server be killed while it answers: what only
// reads is sent again, what may have been done is not.
func TestWhatWasCutOffIsAskedAgain(t *testing.T) {
	var gets, posts atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := &gets
		if r.Method == "POST" {
			n = &posts
		}
		if n.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, `"here"`)
	}))
	defer server.Close()
	c := New(server.URL, "")
	if err := c.Call(t.Context(), "GET", "/", nil, nil); err != nil || gets.Load() != 2 {
		t.Errorf("%v, asked %d times", err, gets.Load())
	}
	if _, err := c.Do(t.Context(), "POST", "/", strings.NewReader("x"), nil); err == nil || posts.Load() != 1 {
		t.Errorf("%v, sent %d times", err, posts.Load())
	}
}
