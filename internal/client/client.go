// Package client speaks the platform's API for the command line.
package client

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"fragua.dev/fragua/contract/event"
)

const (
	maxAnswer = 64 << 20 // bytes
	tries     = 6
	firstWait = 100 * time.Millisecond
	mostWait  = 5 * time.Second
	dialTime  = 10 * time.Second
)

// Client speaks to one server.
type Client struct {
	token string
	http  *http.Client
	wait  time.Duration // before the first request that is sent again

	mu   sync.Mutex
	base string
	find func() string
}

// New returns a client of the server at base.
func New(base, token string) *Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: dialTime}).DialContext
	return &Client{base: strings.TrimRight(base, "/"), token: token, wait: firstWait, http: &http.Client{Transport: t}}
}

// Elsewhere has the client ask find where the server is when it does not answer any
// more: one that was started again may have another port. Nothing is no news.
func (c *Client) Elsewhere(find func() string) { c.find = find }

// at returns the server's URL.
func (c *Client) at() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base
}

// lookElsewhere asks where the server is by now, one request at a time.
func (c *Client) lookElsewhere() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.find == nil {
		return
	}
	if base := c.find(); base != "" {
		c.base = base
	}
}

// A Problem is a request that the server did not do.
type Problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Errors []struct {
		Location string `json:"location"`
		Message  string `json:"message"`
	} `json:"errors"`
}

// Error says what is wrong, each fault on a line of its own.
func (p *Problem) Error() string {
	var b strings.Builder
	if b.WriteString(p.Detail); p.Detail == "" {
		b.WriteString(p.Title)
	}
	for _, e := range p.Errors {
		fmt.Fprintf(&b, "\n  %s: %s", e.Location, e.Message)
	}
	if p.Status == http.StatusUnauthorized {
		b.WriteString("\n  give a token: --token, FRAGUA_TOKEN, fragua login, or --data DIR of a server on this machine;\n  fragua logout forgets the one that login kept")
	}
	return b.String()
}

// Do sends a request, and returns the answer if it is a good one. A request with a
// body that can be read again, or none, is sent again while the server is not
// there or too busy: then nothing was done. What only reads is also sent again when
// the server went away before it answered.
func (c *Client) Do(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	var again io.Seeker
	if body != nil {
		again, _ = body.(io.Seeker)
	}
	for try, wait := 1, c.wait; ; try, wait = try+1, min(2*wait, mostWait) {
		resp, err := c.once(ctx, method, path, body, header)
		pause := wait + rand.N(wait)
		var p *Problem
		switch {
		case err == nil:
			return resp, nil
		case errors.As(err, &p) && (p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable):
		case errors.Is(err, syscall.ECONNREFUSED):
		case method == http.MethodGet && cutOff(err): // and nothing was done that could be done twice
		default:
			return nil, err
		}
		if try == tries || ctx.Err() != nil || body != nil && again == nil {
			if errors.Is(err, syscall.ECONNREFUSED) {
				return nil, fmt.Errorf("no server answers at %s: start one with fragua serve, or say where it is with --server or FRAGUA_URL", c.at())
			}
			return nil, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			c.lookElsewhere()
		}
		if again != nil {
			if _, err := again.Seek(0, io.SeekStart); err != nil {
				return nil, err
			}
		}
	}
}

// cutOff says whether the server went away before it had answered.
func cutOff(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func (c *Client) once(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	if body != nil {
		body = io.NopCloser(body) // so that it is not closed, and can be sent again
	}
	req, err := http.NewRequestWithContext(ctx, method, c.at()+path, body)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	p := &Problem{Status: resp.StatusCode, Title: resp.Status}
	_ = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(p) // what is no problem+json has its status
	return nil, p
}

// Call sends in as JSON, if it is not nil, and decodes the answer into out, if that
// is not nil.
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	header := http.Header{"Accept": {"application/json"}}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
		header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(ctx, method, path, body, header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
		return err
	}
	dec := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	dec.UseNumber() // what is read only to be shown is shown as it was written
	if err := dec.Decode(out); err != nil {
		return fmt.Errorf("%s %s: the answer cannot be read: %w", method, path, err)
	}
	return nil
}

// Open returns the body of an answer as a stream; the caller closes it.
func (c *Client) Open(ctx context.Context, path, accept string) (io.ReadCloser, error) {
	header := http.Header{}
	if accept != "" {
		header.Set("Accept", accept)
	}
	resp, err := c.Do(ctx, http.MethodGet, path, nil, header)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Events calls yield with each event whose subject matches one of subjects, after
// the place after; see GET /events. When the stream breaks off it goes on where it
// was, for as long as follow says that it has no end.
func (c *Client) Events(ctx context.Context, subjects []string, after string, follow bool, yield func(place string, e event.Event, raw []byte) error) error {
	opened := false
	for fails := 0; ; {
		q := url.Values{"follow": {strconv.FormatBool(follow)}}
		for _, s := range subjects {
			q.Add("subject", s)
		}
		header := http.Header{"Accept": {"text/event-stream"}}
		if after != "" {
			header.Set("Last-Event-ID", after)
		}
		resp, err := c.Do(ctx, http.MethodGet, "/events?"+q.Encode(), nil, header)
		if p := (*Problem)(nil); err != nil && opened && follow && fails < tries && ctx.Err() == nil && !errors.As(err, &p) {
			fails++ // it is away: each of these takes several seconds
			continue
		}
		if err != nil {
			return err
		}
		opened = true
		before := after
		err = sse(resp.Body, func(id string, data []byte) error {
			e, err := event.Decode(data)
			if err != nil {
				return nil //nolint:nilerr // not an event: a sign of life
			}
			if id != "" {
				after = id
			}
			return yield(id, e, data)
		})
		resp.Body.Close()
		if after != before {
			fails = 0
		}
		if ctx.Err() != nil || !follow || err != nil && !errors.Is(err, errBroken) {
			return err
		}
		if fails++; fails > tries {
			return cmp.Or(err, errBroken)
		}
		select {
		case <-time.After(firstWait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var errBroken = errors.New("the event stream broke off")

// sse calls yield with each message of a stream of server-sent events.
func sse(r io.Reader, yield func(id string, data []byte) error) error {
	in := bufio.NewReaderSize(r, 64<<10)
	var (
		id   string
		data []byte
	)
	for {
		line, err := in.ReadBytes('\n')
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%w: %w", errBroken, err)
		case len(line) == 0:
			if data != nil {
				if err := yield(id, data); err != nil {
					return err
				}
			}
			data = nil
		case bytes.HasPrefix(line, []byte("id:")):
			id = strings.TrimSpace(string(line[3:]))
		case bytes.HasPrefix(line, []byte("data:")):
			data = append(data, bytes.TrimPrefix(line[5:], []byte(" "))...)
		}
		if len(data) > maxAnswer {
			return errors.New("an event is too large")
		}
	}
}
