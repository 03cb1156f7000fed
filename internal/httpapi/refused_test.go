package httpapi

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestRefusedClientsReadTheAnswer sends bodies that are too large to their end
// before it listens, as many clients do.
func TestRefusedClientsReadTheAnswer(t *testing.T) {
	next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			if _, large := errors.AsType[*http.MaxBytesError](err); large {
				problem(http.StatusRequestEntityTooLarge, "too large").write(w)
			}
		}
	})
	s := httptest.NewServer(Handler(next, Options{Verifier: verifier{}, MaxBody: 1 << 20}))
	defer s.Close()
	piece := make([]byte, 1<<20)
	const pieces = 28
	for how, header := range map[string]string{
		"of a known length": fmt.Sprintf("Content-Length: %d", pieces*len(piece)), "in chunks": "Transfer-Encoding: chunked",
	} {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\n%s\r\n\r\n", header)
		frame, end := "%s", ""
		if how == "in chunks" {
			frame, end = fmt.Sprintf("%x\r\n%%s\r\n", len(piece)), "0\r\n\r\n"
		}
		for range pieces {
			if _, err := fmt.Fprintf(c, frame, piece); err != nil {
				t.Fatalf("%s: %v", how, err) // where most clients give up
			}
		}
		fmt.Fprint(c, end)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%s: %v", how, err)
		} else if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %s", how, resp.Status)
		}
		c.Close()
	}
}
