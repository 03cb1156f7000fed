package agentclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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

// A line is at most one connection to an agent, for one client at a time.
type line struct {
	address string
	http    *http.Client
	t       *http.Transport
	since   time.Time // nobody uses it

	mu     sync.Mutex
	peer   string // whom a handshake is made with
	proved string // whom the connection that stands was shown to be with, or would be by its handshake
}

// Dial returns a client of the worker w of tenant t at address, HOST:PORT. It
// connects when it is first used.
func (d *Dialer) Dial(address string, t ident.Tenant, w ident.Worker) *Client {
	peer := identity.Worker(t, w)
	tr := transport(identity.Client(d.own.TLS(), d.roots, peer))
	return &Client{
		base: "https://" + address, peer: peer, worker: w, dialer: d, line: d.take(address, peer),
		http: &http.Client{Transport: tr}, t: tr,
	}
}

// transport returns a way to workers. With config nil its user makes the
// connections.
func transport(config *tls.Config) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTime}
	return &http.Transport{
		TLSClientConfig: config, DialContext: dialer.DialContext, TLSHandshakeTimeout: dialTime, MaxIdleConnsPerHost: 2,
		IdleConnTimeout: lineIdle, DisableCompression: true, ReadBufferSize: 32 << 10,
	}
}

func (d *Dialer) take(address, peer string) *line {
	d.mu.Lock()
	l := d.lines[address]
	delete(d.lines, address)
	d.mu.Unlock()
	if l == nil {
		l = &line{address: address, proved: peer, t: transport(nil)}
		l.t.MaxConnsPerHost, l.t.MaxIdleConnsPerHost, l.t.ReadBufferSize = 1, 1, 4<<10
		l.t.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			return l.dial(ctx, d, network, address)
		}
		l.http = &http.Client{Transport: l.t}
	}
	l.mu.Lock()
	l.peer = peer
	l.mu.Unlock()
	return l
}

// dial connects by a handshake with whom the line is for now.
func (l *line) dial(ctx context.Context, d *Dialer, network, address string) (net.Conn, error) {
	l.mu.Lock()
	peer := l.peer
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var nd net.Dialer
	conn, err := nd.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := tls.Client(conn, identity.Client(d.own.TLS(), d.roots, peer))
	if err := c.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
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
	state, err := c.callOn(ctx, l.http, http.MethodPost, "/worker", agentapi.WorkerRequest{Worker: c.worker}, &p, 0)
	if err != nil {
		return err
	}
	if err := identity.CheckProof(state, c.dialer.own.Shared, c.peer, p.Cert, p.Code, time.Now()); err != nil {
		l.t.CloseIdleConnections()
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
	l.since = time.Now()
	if old := d.lines[l.address]; old != nil {
		old.t.CloseIdleConnections()
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
	oldest.t.CloseIdleConnections()
}

// Close ends the connections that nobody uses.
func (d *Dialer) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for a, l := range d.lines {
		l.t.CloseIdleConnections()
		delete(d.lines, a)
	}
}
