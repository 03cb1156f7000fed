package worker

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/identity"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/httpapi/apitest"
	"fragua.dev/fragua/worker/provider"
)

// authority issues nothing: made-up workers speak no TLS.
type authority struct{}

func (authority) Issue(context.Context, string, time.Duration) (identity.Certificate, error) {
	return identity.Certificate{}, nil
}
func (authority) Roots() (*x509.CertPool, []byte) { return nil, nil }

// yard is a provider of workers that exist in memory only, and outlive the room.
type yard struct {
	mu       sync.Mutex
	capacity int
	live     map[ident.Worker]provider.Request
	creates  int // tries to make a worker
	ends     int // tries to end one
	leases   map[ident.Worker]time.Duration
	refuse   []error       // of the next tries to make one
	stuck    int           // tries to end one that fail
	faint    int           // workers that die when they get their identity
	handle   string        // of all workers, which are one process after each other; empty: each has its own
	gate     chan struct{} // if it is there, making a worker waits for it
	events   chan provider.Ended
}

func newYard() *yard {
	return &yard{capacity: 100, live: map[ident.Worker]provider.Request{}, leases: map[ident.Worker]time.Duration{}, events: make(chan provider.Ended, 100)}
}

func (y *yard) Kind() string { return "yard" }

func (y *yard) Create(ctx context.Context, r provider.Request) (provider.Made, error) {
	y.mu.Lock()
	gate := y.gate
	y.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return provider.Made{}, ctx.Err()
		}
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	y.creates++
	if len(y.refuse) > 0 {
		err := y.refuse[0]
		y.refuse = y.refuse[1:]
		return provider.Made{}, err
	}
	if _, there := y.live[r.Worker]; !there {
		if len(y.live) >= y.capacity {
			return provider.Made{}, provider.ErrCapacity
		}
		y.live[r.Worker] = r
	}
	return provider.Made{Worker: r.Worker, Tenant: r.Tenant, Address: "yard:" + string(r.Worker), Handle: cmp.Or(y.handle, string(r.Worker))}, nil
}

func (y *yard) ConfigureSecurity(_ context.Context, id ident.Worker, s provider.Security) error {
	y.mu.Lock()
	y.leases[id] = s.Lease
	dies := y.faint > 0
	y.faint--
	y.mu.Unlock()
	if dies {
		y.die(id, 1)
	}
	if !y.has(id) {
		return provider.ErrGone
	}
	return nil
}

func (y *yard) Terminate(_ context.Context, id ident.Worker, _ time.Duration) (int, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.ends++
	if y.stuck > 0 {
		y.stuck--
		return 0, errors.New("it does not answer")
	}
	if _, there := y.live[id]; !there {
		return 0, provider.ErrGone
	}
	delete(y.live, id)
	return 0, nil
}

func (y *yard) Logs(_ context.Context, id ident.Worker) (io.ReadCloser, error) {
	if !y.has(id) {
		return nil, provider.ErrGone
	}
	return io.NopCloser(strings.NewReader("I am here\n")), nil
}

func (y *yard) PortForward(context.Context, ident.Worker, uint16) (net.Conn, error) {
	return nil, provider.ErrGone
}
func (y *yard) Events() <-chan provider.Ended { return y.events }
func (y *yard) Close() error                  { return nil }

func (y *yard) Adopt(_ context.Context, known []provider.Made) (alive []ident.Worker, err error) {
	for _, m := range known {
		if y.has(m.Worker) {
			alive = append(alive, m.Worker)
		}
	}
	return alive, nil
}

// set changes the yard.
func (y *yard) set(change func()) {
	y.mu.Lock()
	defer y.mu.Unlock()
	change()
}

func (y *yard) has(id ident.Worker) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	_, there := y.live[id]
	return there
}

func (y *yard) counts() (live, creates int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	return len(y.live), y.creates
}

// die ends a worker unasked; it is told as often as times says.
func (y *yard) die(id ident.Worker, times int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	delete(y.live, id)
	for range times {
		y.events <- provider.Ended{Worker: id, ExitCode: 137, Reason: "killed by signal 9"}
	}
}

// house is a room at work, with its yard and its API, in virtual time.
type house struct {
	t    *testing.T
	dir  string
	yard *yard
	room *Room
	mux  *http.ServeMux
	stop context.CancelFunc
	over chan struct{}
	said apitest.Said

	outlive time.Duration
}

// inHouse runs a test in a house of its own.
func inHouse(t *testing.T, test func(t *testing.T, h *house)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := &house{t: t, dir: dir, yard: newYard()}
		h.open()
		defer h.close()
		test(t, h)
	})
}

func (h *house) open() {
	h.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var err error
	h.room, err = Open(ctx, Config{
		Dir: h.dir, Now: time.Now, IDs: ident.NewSource(time.Now), Log: slog.New(slog.DiscardHandler), Decider: apitest.Permit{},
		Authority: authority{}, Provider: h.yard, Nodes: []ident.Node{"n1"}, Outlive: h.outlive,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.room.DB().OnCommit(h.said.Hear)
	h.mux = http.NewServeMux()
	h.room.Routes(httpapi.New(h.mux, "test"))
	h.stop, h.over = stop, make(chan struct{})
	room, over := h.room, h.over
	go func() {
		defer close(over)
		if err := room.Run(ctx); err != nil {
			h.t.Error(err)
		}
	}()
}

func (h *house) close() {
	h.t.Helper()
	h.stop()
	<-h.over
	if err := h.room.Close(); err != nil {
		h.t.Error(err)
	}
}

// tell gives the room a fact about a job of acme, as the bus would.
func tell[T any](h *house, k event.Kind[T], twist string, data T) error {
	e := k.Event(event.About{Tenant: "acme", Key: "job", Twist: twist, At: time.Now()}, data)
	for _, s := range h.room.Subscriptions() {
		if s.Subject == e.Subject {
			return s.Handle(context.Background(), e)
		}
	}
	return errors.New("nobody hears " + e.Subject)
}

func (h *house) assign(job ident.Job, twist string) ident.Worker {
	h.t.Helper()
	id := ident.Assignment("asg_" + string(job))
	if err := tell(h, event.AssignmentCreated, twist, event.Assignment{Assignment: id, Job: job, Node: "n1", Attempt: 1, Provider: "yard"}); err != nil {
		h.t.Fatal(err)
	}
	return workerID("acme", id)
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// wait lets everything happen that does not wait for time to pass.
func (h *house) wait() { synctest.Wait() }

// later lets time pass: virtual time, in which nothing is waited for.
func (h *house) later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// heard returns the ids of all events of a type.
func (h *house) heard(typ string) (ids []string) {
	for _, e := range h.said.All() {
		if e.Type == typ {
			ids = append(ids, string(e.ID))
		}
	}
	return ids
}

// wantSaid fails unless so many events of each kind were said.
func (h *house) wantSaid(created, terminated, failed int) {
	h.t.Helper()
	a, b, c := h.heard("WorkerCreated"), h.heard("WorkerTerminated"), h.heard("WorkerFailed")
	if len(a) != created || len(b) != terminated || len(c) != failed {
		h.t.Errorf("created %d, terminated %d, failed %d; want %d, %d, %d", len(a), len(b), len(c), created, terminated, failed)
	}
}

func (h *house) stored(id ident.Worker) *worker {
	h.t.Helper()
	w, err := h.room.read(context.Background(), "acme", id)
	if err != nil {
		h.t.Fatalf("%s: %v", id, err)
	}
	return w
}

// callAs speaks to the API for a tenant.
func (h *house) callAs(tenant, method, path, body string) (int, Worker, string) {
	h.t.Helper()
	w := apitest.Call(h.mux, tenant, method, path, "application/json", strings.NewReader(body))
	var out Worker
	if w.Code < 300 {
		json.Unmarshal(w.Body.Bytes(), &out) // a log is no worker
	}
	return w.Code, out, w.Body.String()
}

func (h *house) want(status int, method, path, body string) Worker {
	h.t.Helper()
	code, w, text := h.callAs("acme", method, path, body)
	if code != status {
		h.t.Fatalf("%s %s: %d, want %d: %s", method, path, code, status, text)
	}
	return w
}

// list reads a page of a listing.
func (h *house) list(path string) (page struct {
	Items []Worker `json:"items"`
	Next  string   `json:"next_cursor"`
}, err error) {
	_, _, text := h.callAs("acme", "GET", path, "")
	return page, json.Unmarshal([]byte(text), &page)
}
