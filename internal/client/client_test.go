package client

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
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
	asked := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked[r.Method]++; asked[r.Method] == 1 {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, `"here"`)
	}))
	defer server.Close()
	c := New(server.URL, "")
	if err := c.Call(t.Context(), "GET", "/", nil, nil); err != nil || asked["GET"] != 2 {
		t.Errorf("%v, asked %d times", err, asked["GET"])
	}
	if _, err := c.Do(t.Context(), "POST", "/", strings.NewReader("x"), nil); err == nil || asked["POST"] != 1 {
		t.Errorf("%v, sent %d times", err, asked["POST"])
	}
}
