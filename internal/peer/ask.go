package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	dialTime  = 3 * time.Second
	firstWait = 5 * time.Millisecond
	mostWait  = 250 * time.Millisecond
	idleTime  = time.Minute
)

// A Caller asks other rooms in the name of one.
type Caller struct {
	dir Dir
	id  *Identity

	mu sync.Mutex
	to map[string]*http.Transport
}

// Caller returns who asks as id.
func (d Dir) Caller(id *Identity) *Caller {
	return &Caller{dir: d, id: id, to: map[string]*http.Transport{}}
}

// Close ends the connections that nobody uses.
func (c *Caller) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.to {
		t.CloseIdleConnections()
	}
	return nil
}

// To returns the way to a room's process, wherever that is at the time. What is sent
// does not wait for a process that is away.
func (c *Caller) To(room string) http.RoundTripper {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.to[room]; t != nil {
		return t
	}
	dialer := &net.Dialer{Timeout: dialTime}
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			address, err := c.dir.Address(room)
			if err != nil {
				return nil, err
			}
			return dialer.DialContext(ctx, network, address)
		},
		TLSClientConfig: c.id.client(room), TLSHandshakeTimeout: dialTime, MaxIdleConnsPerHost: 32, IdleConnTimeout: idleTime,
		DisableCompression: true,
	}
	c.to[room] = t
	return t
}

// Send sends one request to a room, and returns a good answer. An error is what the
// room said, or wraps ErrAway.
func (c *Caller) Send(ctx context.Context, room, path string, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+room+Prefix+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.To(room).RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", room, ErrAway, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	var p refusal
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxFile)).Decode(&p); err != nil || p.Text == "" {
		return nil, fmt.Errorf("%s: %w: %s", room, ErrAway, resp.Status)
	}
	return nil, p.err()
}

// Ask asks a room, until ctx ends while the room is away.
func Ask[Out any](ctx context.Context, c *Caller, room, path string, in any) (out Out, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return out, fmt.Errorf("ask %s: %w", room, err)
	}
	for wait := firstWait; ; wait = min(2*wait, mostWait) {
		out, err = ask[Out](ctx, c, room, path, body)
		if !errors.Is(err, ErrAway) {
			return out, err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return out, err
		}
	}
}

func ask[Out any](ctx context.Context, c *Caller, room, path string, body []byte) (out Out, err error) {
	answer, err := c.Send(ctx, room, path, bytes.NewReader(body))
	if err != nil {
		return out, err
	}
	defer answer.Close()
	b, err := io.ReadAll(io.LimitReader(answer, MaxBody+1))
	switch {
	case err != nil:
		return out, fmt.Errorf("%s: %w: %w", room, ErrAway, err)
	case len(b) > MaxBody:
		return out, fmt.Errorf("%s: the answer is larger than %d bytes", room, MaxBody)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return out, fmt.Errorf("%s: the answer cannot be read: %w", room, err)
	}
	return out, nil
}
