package orchestration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/httpapi/apitest"
)

// house is a room with its database, its API and a clock of its own.
type house struct {
	t    testing.TB
	room *Room
	mux  *http.ServeMux

	mu   sync.Mutex
	now  time.Time
	said apitest.Said // all that was committed, in order
}

func newHouse(t testing.TB) *house {
	h := &house{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	var err error
	h.room, err = Open(t.Context(), Config{
		Dir: t.TempDir(), Now: h.clock, IDs: ident.NewSource(h.clock), Log: slog.New(slog.DiscardHandler), Decider: apitest.Permit{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.room.Close(); err != nil {
			t.Error(err)
		}
	})
	h.room.DB().OnCommit(h.said.Hear)
	h.mux = http.NewServeMux()
	h.room.Routes(httpapi.New(h.mux, "test"))
	return h
}

func (h *house) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

// later moves the clock on.
func (h *house) later(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

// heard returns what was said since the first n events.
func (h *house) heard(n int) []event.Event {
	return h.said.All()[n:]
}

// count returns how often something of a kind was said of a key.
func (h *house) count(subject, key string) int {
	n := 0
	for _, e := range h.heard(0) {
		if e.Subject == subject && e.Key == key {
			n++
		}
	}
	return n
}

// callAs speaks to the API for a tenant, and reads the answer into out.
func (h *house) callAs(tenant, method, path, body string, out any) int {
	h.t.Helper()
	w := apitest.Call(h.mux, tenant, method, path, "application/json", strings.NewReader(body))
	if out != nil {
		if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
			h.t.Fatalf("%s %s: %d: %v", method, path, w.Code, err)
		}
	}
	if w.Code >= 500 {
		h.t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return w.Code
}

func (h *house) call(method, path, body string, out any) int {
	h.t.Helper()
	return h.callAs("acme", method, path, body, out)
}

// want calls, and fails the test on another status.
func (h *house) want(status int, method, path, body string, out any) {
	h.t.Helper()
	if got := h.call(method, path, body, out); got != status {
		h.t.Fatalf("%s %s: %d, want %d", method, path, got, status)
	}
}

// job returns a job as it is stored.
func (h *house) job(id ident.Job) *job {
	h.t.Helper()
	j, err := h.room.readJob(context.Background(), "acme", id)
	if err != nil {
		h.t.Fatalf("%s: %v", id, err)
	}
	return j
}

// tell gives the room a fact about a job of acme, as the bus would.
func tell[T any](h *house, k event.Kind[T], id ident.Job, data T) error {
	e := k.Event(event.About{Tenant: "acme", Key: string(id), At: h.clock()}, data)
	for _, s := range h.room.Subscriptions() {
		if s.Subject == e.Subject {
			return s.Handle(context.Background(), e)
		}
	}
	return fmt.Errorf("nobody hears %s", e.Subject)
}

// must is tell for what has to be taken.
func must[T any](h *house, k event.Kind[T], id ident.Job, data T) {
	h.t.Helper()
	if err := tell(h, k, id, data); err != nil {
		h.t.Fatalf("%s of %s: %v", k.Type, id, err)
	}
}

// run brings a job that is waiting for its place to RUNNING.
func (h *house) run(id ident.Job) {
	h.t.Helper()
	n := h.job(id).Attempts
	must(h, event.AssignmentCreated, id, event.Assignment{Assignment: ident.Assignment("asg_" + string(id)), Job: id, Node: "n1", Attempt: n})
	must(h, event.WorkerCreated, id, event.WorkerMade{Worker: "w1", Job: id, Attempt: n, Address: "127.0.0.1:1"})
}

// end ends a running job's only step, well or for good.
func (h *house) end(id ident.Job, well bool) {
	h.t.Helper()
	n, at := h.job(id).Attempts, h.clock()
	if well {
		must(h, event.StepCompleted, id, event.StepEnd{Job: id, Exec: "x1", Attempt: n, Try: 1, At: at})
		return
	}
	must(h, event.StepFailed, id, event.StepFault{Job: id, Exec: "x1", Attempt: n, Try: 1, At: at, Code: "exit", Last: true, Result: spec.ExecResult{ExitCode: 1}})
}

// bytesOf writes a job as its row would hold it.
func bytesOf(t testing.TB, j *job) []byte {
	t.Helper()
	b, err := encode(j)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(b)
}
