package agentclient

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/identity"
)

const (
	lineIdle = 90 * time.Second // after which a connection that nobody uses is closed
	maxLines = 256              // addresses that are remembered; more are forgotten, the longest unused first
)

// A Dialer speaks to workers with one identity. An agent is the worker of one job
// after another, and a handshake costs as much as a small job: so the dialer keeps
// one connection to each agent, a line, and has the agent prove on it who it has
// become. A line that breaks is made anew by a handshake with the worker of then.
type Dialer struct {
	own   identity.Certificate
	roots *x509.CertPool

	mu    sync.Mutex
	lines map[string]*line // by address; those that nobody uses
}

// NewDialer returns a dialer that shows the certificate own, of the execution room,
// and believes roots.
func NewDialer(own identity.Certificate, roots *x509.CertPool) *Dialer {
	return &Dialer{own: own, roots: roots, lines: map[string]*line{}}
}

// A line is at most one connection to an agent, for one client at a time. It is the
// http.RoundTripper of that client's small calls.
type line struct {
	dialer  *Dialer
	address string
	since   time.Time   // nobody uses it
	idle    *time.Timer // closes the connection that nobody uses

	trip  sync.Mutex // held by who uses the connection
	conn  *tls.Conn  // nil when there is none
	in    *bufio.Reader
	out   *bufio.Writer
	state tls.ConnectionState

	mu     sync.Mutex
	peer   string // whom a handshake is made with
	proved string // whom the connection that stands was shown to be with, or would be by its handshake
}

// Dial returns a client of the worker w of tenant t at address, HOST:PORT. It
// connects when it is first used.
func (d *Dialer) Dial(address string, t ident.Tenant, w ident.Worker) *Client {
	peer := identity.Worker(t, w)
	tr := &http.Transport{
		TLSClientConfig: identity.Client(d.own.TLS(), d.roots, peer), DialContext: (&net.Dialer{Timeout: dialTime}).DialContext,
		TLSHandshakeTimeout: dialTime, MaxIdleConnsPerHost: 2, IdleConnTimeout: lineIdle, DisableCompression: true, ReadBufferSize: 32 << 10,
	}
	l := d.take(address, peer)
	return &Client{
		base: "https://" + address, peer: peer, worker: w, dialer: d, line: l, short: &http.Client{Transport: l},
		http: &http.Client{Transport: tr}, t: tr,
	}
}

func (d *Dialer) take(address, peer string) *line {
	d.mu.Lock()
	l := d.lines[address]
	delete(d.lines, address)
	d.mu.Unlock()
	if l == nil {
		l = &line{dialer: d, address: address, proved: peer}
	} else {
		l.idle.Stop()
	}
	l.mu.Lock()
	l.peer = peer
	l.mu.Unlock()
	return l
}

// RoundTrip sends a request and reads the whole answer, one after the other and in
// the goroutine that asks: handing both to others, as http.Transport does, costs as
// much as all the rest of a small call. A connection on which anything fails is
// closed; the next call makes another.
func (l *line) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	l.trip.Lock()
	defer l.trip.Unlock()
	ctx := req.Context()
	if l.conn == nil {
		if err := l.dial(ctx); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			l.hangUp()
		}
	}()
	deadline, _ := ctx.Deadline()
	l.conn.SetDeadline(deadline)
	conn := l.conn
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })()
	if err := errors.Join(req.Write(l.out), l.out.Flush()); err != nil {
		return nil, err
	}
	if resp, err = http.ReadResponse(l.in, req); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, agentapi.MaxBody+1))
	if err == nil && len(body) > agentapi.MaxBody {
		err = errors.New("the answer is too large")
	}
	if err != nil {
		return nil, err
	}
	if resp.Close {
		l.hangUp()
	}
	resp.Body, resp.TLS = io.NopCloser(bytes.NewReader(body)), &l.state
	return resp, nil
}

// dial connects by a handshake with whom the line is for now.
func (l *line) dial(ctx context.Context) error {
	l.mu.Lock()
	peer := l.peer
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var nd net.Dialer
	conn, err := nd.DialContext(ctx, "tcp", l.address)
	if err != nil {
		return err
	}
	c := tls.Client(conn, identity.Client(l.dialer.own.TLS(), l.dialer.roots, peer))
	if err := c.HandshakeContext(ctx); err != nil {
		conn.Close()
		return err
	}
	l.conn, l.in, l.out, l.state = c, bufio.NewReader(c), bufio.NewWriter(c), c.ConnectionState()
	return nil
}

// hangUp closes the connection; whoever calls it holds trip.
func (l *line) hangUp() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

// close closes the connection once nobody uses it.
func (l *line) close() {
	l.trip.Lock()
	defer l.trip.Unlock()
	l.hangUp()
}

// prove has the worker prove who it is, if its agent was another when the line's
// connection was made.
func (c *Client) prove(ctx context.Context) error {
	l := c.line
	l.mu.Lock()
	done := l.proved == c.peer
	l.mu.Unlock()
	if done {
		return nil
	}
	var p agentapi.Proof
	state, err := c.callOn(ctx, c.short, http.MethodPost, "/worker", agentapi.WorkerRequest{Worker: c.worker}, &p, 0)
	if err != nil {
		return err
	}
	if err := identity.CheckProof(state, c.dialer.own.Shared, c.peer, p.Cert, p.Code, time.Now()); err != nil {
		l.close()
		return err
	}
	l.mu.Lock()
	l.proved = c.peer
	l.mu.Unlock()
	return nil
}

// release keeps a line for the agent's next worker.
func (d *Dialer) release(l *line) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l.since, l.idle = time.Now(), time.AfterFunc(lineIdle, l.close)
	if old := d.lines[l.address]; old != nil {
		old.idle.Stop()
		old.close()
	}
	d.lines[l.address] = l
	if len(d.lines) <= maxLines {
		return
	}
	oldest := l
	for _, o := range d.lines {
		if o.since.Before(oldest.since) {
			oldest = o
		}
	}
	delete(d.lines, oldest.address)
	oldest.idle.Stop()
	oldest.close()
}

// Close ends the connections that nobody uses.
func (d *Dialer) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for a, l := range d.lines {
		l.idle.Stop()
		l.close()
		delete(d.lines, a)
	}
}
