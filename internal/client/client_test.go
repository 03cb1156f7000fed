package client

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
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

// TestEventsGoOnAfterALongAbsence has a server that is away for longer than one request
// asks for it, and comes again elsewhere.
func TestEventsGoOnAfterALongAbsence(t *testing.T) {
	lis := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	var places []string
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		places = append(places, r.Header.Get("Last-Event-ID"))
		e := event.RunStarted.Event(event.About{Tenant: "a", Key: "r", Correlation: "c", At: time.Now()}, event.RunMoved{Run: "r"})
		fmt.Fprintf(w, "id: %d\ndata: %s\n\n", len(places), e.AppendJSON(nil))
	})
	first, second := httptest.NewServer(handler), httptest.NewUnstartedServer(handler)
	second.Listener.Close()
	second.Listener = lis()
	defer second.Close()
	c, asked := New(first.URL, ""), 0
	c.wait = time.Millisecond
	c.Elsewhere(func() string {
		if asked++; asked < 3*tries/2 {
			return ""
		}
		if asked == 3*tries/2 {
			second.Start()
		}
		return second.URL
	})
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := c.Events(ctx, nil, "0", true, func(string, event.Event, []byte) error {
		switch n++; n {
		case 1:
			first.CloseClientConnections()
			first.Listener.Close()
		case 2:
			cancel()
		}
		return nil
	})
	if n != 2 || strings.Join(places, " ") != "0 1" {
		t.Errorf("%d events from places %q: %v", n, places, err)
	}
}
