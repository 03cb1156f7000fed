// Package agentclient speaks to a worker's agent for the execution room; see
// package agentapi for what is said.
package agentclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/ident"
)

// Errors, for errors.Is.
var (
	// ErrRefused says that the worker has another job, or another attempt, or
	// ended: it will not do this ever.
	ErrRefused = errors.New("the worker refused")
	// ErrUnreachable says that there was no answer: asking again may help.
	ErrUnreachable = errors.New("the worker cannot be reached")
)

const (
	dialTime   = 5 * time.Second
	answerTime = 10 * time.Second // until an answer begins, beyond what is asked to wait
	maxProblem = 64 << 10
)

// Client speaks to one worker. Its calls may be made at the same time.
type Client struct {
	base   string
	peer   string // the worker's SPIFFE id
	worker ident.Worker
	dialer *Dialer
	line   *line
	short  *http.Client // on the line, for calls of /exec
	http   *http.Client // for all others, which may take long
	t      *http.Transport
}

// Close hands the line back, and ends all other connections.
func (c *Client) Close() {
	c.t.CloseIdleConnections()
	c.dialer.release(c.line)
}

// call sends a body, and decodes the answer.
func (c *Client) call(ctx context.Context, method, path string, in, out any, wait time.Duration) error {
	_, err := c.callOn(ctx, c.http, method, path, in, out, wait)
	return err
}

// callOn is call on one of the client's ways to the worker. It returns the
// connection that was used.
func (c *Client) callOn(ctx context.Context, way *http.Client, method, path string, in, out any, wait time.Duration) (*tls.ConnectionState, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+answerTime)
	defer cancel()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.doOn(ctx, way, method, path, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, agentapi.MaxBody)).Decode(out); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	io.Copy(io.Discard, io.LimitReader(resp.Body, 1024)) // so that the connection can be used again
	return resp.TLS, nil
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	return c.doOn(ctx, c.http, method, path, body)
}

func (c *Client) doOn(ctx context.Context, way *http.Client, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := way.Do(req)
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // an address of the house's own says nothing to people
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	var p struct{ Detail string }
	_ = json.NewDecoder(io.LimitReader(resp.Body, maxProblem)).Decode(&p) // without a detail the status has to do
	if p.Detail == "" {
		p.Detail = resp.Status
	}
	switch resp.StatusCode {
	case http.StatusConflict, http.StatusGone:
		return nil, fmt.Errorf("%w: %s", ErrRefused, p.Detail)
	case http.StatusServiceUnavailable, http.StatusInternalServerError:
		return nil, fmt.Errorf("%w: %s", ErrUnreachable, p.Detail)
	}
	return nil, errors.New(p.Detail)
}

// Exec starts a step; one that was started already is answered as it stands.
func (c *Client) Exec(ctx context.Context, r agentapi.ExecRequest) (x agentapi.Exec, err error) {
	if err := c.prove(ctx); err != nil {
		return x, err
	}
	_, err = c.callOn(ctx, c.short, http.MethodPost, "/exec", r, &x, 0)
	return x, err
}

// Complete waits for an execution's end, for r.WaitMS at most.
func (c *Client) Complete(ctx context.Context, r agentapi.CompleteRequest) (x agentapi.Exec, err error) {
	return x, c.call(ctx, http.MethodPost, "/complete", r, &x, time.Duration(r.WaitMS)*time.Millisecond)
}

// Cancel ends an execution.
func (c *Client) Cancel(ctx context.Context, r agentapi.CancelRequest) (x agentapi.Exec, err error) {
	return x, c.call(ctx, http.MethodPost, "/cancel", r, &x, 0)
}

// Lease gives a sign of life.
func (c *Client) Lease(ctx context.Context) (l agentapi.LeaseReply, err error) {
	return l, c.call(ctx, http.MethodPost, "/lease", nil, &l, 0)
}

// Logs returns the frames of an execution from a byte of the stream on. They end
// when the execution has; the caller closes them.
func (c *Client) Logs(ctx context.Context, exec ident.Exec, from int64) (io.ReadCloser, error) {
	resp, err := c.do(ctx, http.MethodGet, "/logs/"+url.PathEscape(string(exec))+"?from="+strconv.FormatInt(from, 10), nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Workspace lays an archive out in the workspace.
func (c *Client) Workspace(ctx context.Context, r io.Reader) error {
	resp, err := c.do(ctx, http.MethodPut, "/workspace", r)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// File returns a file of the workspace, or a folder as a tar archive; kind says
// which. The caller closes it.
func (c *Client) File(ctx context.Context, path string) (content io.ReadCloser, kind string, err error) {
	resp, err := c.do(ctx, http.MethodGet, "/files?path="+url.QueryEscape(path), nil)
	if err != nil {
		return nil, "", err
	}
	return resp.Body, resp.Header.Get("X-Fragua-Kind"), nil
}
