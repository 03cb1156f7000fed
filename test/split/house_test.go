package split

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/test/program"
)

const (
	patience = 30 * time.Second
	lookAt   = 10 * time.Millisecond
)

var exe string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "split-*")
	if err == nil { // without symbolic links: see Build
		exe, err = program.Build(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// A house is the program in several processes.
type house struct {
	t     *testing.T
	exe   string // a name of its own for the program: its agents are told from those of others
	dir   string
	log   *words
	parts [][]string
	run   []*program.Server
	front int // the part that clients find
}

// words is what the processes say.
type words struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func open(t *testing.T, parts ...[]string) *house {
	t.Helper()
	h := &house{t: t, exe: filepath.Join(filepath.Dir(exe), "of-"+t.Name()), dir: t.TempDir(), log: &words{}, parts: parts, run: make([]*program.Server, len(parts))}
	t.Cleanup(func() {
		for _, s := range h.run {
			s.Kill()
		}
		for _, p := range program.Agents(h.exe) {
			p.Signal(syscall.SIGKILL)
		}
		if t.Failed() {
			t.Logf("the processes said:\n%s", h.log)
		}
	})
	if err := os.Link(exe, h.exe); err != nil {
		t.Fatal(err)
	}
	for i, p := range parts {
		h.launch(i)
		if slices.Contains(p, "orchestration") {
			h.front = i
		}
	}
	h.await()
	return h
}

func (h *house) launch(i int) {
	h.t.Helper()
	s, err := program.LaunchPart(h.exe, h.dir, h.log, h.parts[i])
	if err != nil {
		h.t.Fatal(err)
	}
	h.run[i] = s
}

// await returns when all parts are there.
func (h *house) await() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	if err := h.run[h.front].Await(ctx, h.dir); err != nil {
		h.t.Fatalf("%v\n%s", err, h.log)
	}
}

// with returns the part that has a service.
func (h *house) with(service string) int {
	return slices.IndexFunc(h.parts, func(p []string) bool { return slices.Contains(p, service) })
}

// request asks for path, and returns the answer with its body to be read.
func (h *house) request(path string, header http.Header) *http.Response {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, h.run[h.front].URL+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header = header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("Authorization", "Bearer "+h.run[h.front].Token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func (h *house) text(path string, header http.Header) string {
	h.t.Helper()
	resp := h.request(path, header)
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode >= 300 {
		h.t.Fatalf("GET %s: %s %v %.300s", path, resp.Status, err, b)
	}
	return string(b)
}

// call calls the API, again while a service is away.
func (h *house) call(method, path string, in, out any) {
	h.t.Helper()
	h.eventually(method+" "+path, func() bool {
		status, err := h.run[h.front].Call(h.t.Context(), http.DefaultClient, method, path, in, out)
		if err != nil && status != http.StatusServiceUnavailable && status != 0 {
			h.t.Fatal(err)
		}
		return err == nil
	})
}

func (h *house) eventually(what string, ok func() bool) {
	h.t.Helper()
	t := time.NewTicker(lookAt)
	defer t.Stop()
	for deadline := time.After(patience); !ok(); {
		select {
		case <-t.C:
		case <-deadline:
			h.t.Fatalf("not in time: %s", what)
		}
	}
}

type job struct {
	ID    string `json:"job_id"`
	State string `json:"state"`
	Steps []struct {
		Exec string `json:"exec_id"`
	} `json:"steps"`
	Attempts int `json:"attempts"`
	Failure  any `json:"failure"`
}

func (h *house) submit(id string, spec map[string]any) {
	h.t.Helper()
	h.call("POST", "/jobs", map[string]any{"job_id": id, "spec": spec}, nil)
}

// reaches waits until a job is in a state.
func (h *house) reaches(id, state string) (j job) {
	h.t.Helper()
	h.eventually(id+" is "+state, func() bool {
		h.call("GET", "/jobs/"+id, nil, &j)
		if j.State != state && slices.Contains([]string{"SUCCEEDED", "FAILED", "CANCELLED", "TERMINATED"}, j.State) {
			h.t.Fatalf("%s is %s, want %s: %v", id, j.State, state, j.Failure)
		}
		return j.State == state
	})
	return j
}

// told returns the subjects of the events of each job, each event once.
func (h *house) told() map[string][]string {
	h.t.Helper()
	seen := map[string]bool{}
	subjects := map[string][]string{}
	for line := range strings.Lines(h.text("/events?follow=false&subject=ci.job.>", http.Header{"Accept": {"application/x-ndjson"}})) {
		e, err := event.Decode([]byte(line))
		if err != nil {
			h.t.Fatal(err)
		}
		if !seen[string(e.ID)] {
			seen[string(e.ID)] = true
			subjects[e.Key] = append(subjects[e.Key], e.Subject)
		}
	}
	return subjects
}

// end says that one end of each job has been told, and no other.
func (h *house) end(subject string, jobs ...string) {
	h.t.Helper()
	var told map[string][]string
	h.eventually("the end of each job is told", func() bool {
		told = h.told()
		return !slices.ContainsFunc(jobs, func(id string) bool { return !slices.Contains(told[id], subject) })
	})
	for _, id := range jobs {
		ends := slices.DeleteFunc(told[id], func(s string) bool {
			return !slices.Contains([]string{"ci.job.completed", "ci.job.failed", "ci.job.cancelled", "ci.job.terminated"}, s)
		})
		if len(ends) != 1 || ends[0] != subject {
			h.t.Errorf("%s ended with %v, want one %s", id, ends, subject)
		}
	}
}

func (h *house) file(name string) string { return filepath.Join(h.dir, name) }
