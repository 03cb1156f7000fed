package agent

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/identity"
)

const streamBuffer = 256 << 10

// ServeHTTP is the worker's API, for the job whose identity the connection knows.
func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	j, b := a.job.Load(), r.Context().Value(boundKey{}).(*bound)
	if j != nil && r.URL.Path == "/worker" && r.Method == http.MethodPost {
		j.serveWorker(w, r, b)
		return
	}
	if j == nil || b.job.Load() != j {
		problem(w, http.StatusGone, "the worker of this connection has ended")
		return
	}
	expires := j.renew()
	switch r.Method + " " + r.URL.Path {
	case "POST /exec":
		j.serveExec(w, r)
	case "POST /complete":
		j.serveComplete(w, r)
	case "POST /cancel":
		j.serveCancel(w, r)
	case "POST /lease":
		answer(w, agentapi.LeaseReply{Worker: j.order.Worker, Expires: expires})
	case "PUT /workspace":
		j.serveWorkspace(w, r)
	case "GET /files":
		j.serveFile(w, r)
	default:
		if id, ok := strings.CutPrefix(r.URL.Path, "/logs/"); ok && r.Method == http.MethodGet {
			j.serveLogs(w, r, ident.Exec(id))
			return
		}
		problem(w, http.StatusNotFound, "no such operation")
	}
}

// serveWorker binds the connection to j, and proves that this process is its worker.
func (j *job) serveWorker(w http.ResponseWriter, r *http.Request, b *bound) {
	var q agentapi.WorkerRequest
	if !read(w, r, &q) {
		return
	}
	if q.Worker != j.order.Worker {
		problem(w, http.StatusGone, "this is another worker")
		return
	}
	code, err := identity.Prove(r.TLS, j.order.Cert, j.order.Shared)
	if err != nil {
		problem(w, http.StatusInternalServerError, err.Error())
		return
	}
	j.renew()
	b.job.Store(j)
	answer(w, agentapi.Proof{Cert: j.order.Cert, Code: code})
}

func answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		problem(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header()["Content-Type"] = []string{"application/json"}
	w.Header()["Content-Length"] = []string{strconv.Itoa(len(b))}
	w.Write(b)
}

func problem(w http.ResponseWriter, status int, detail string) {
	b, _ := json.Marshal(map[string]any{"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail})
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	w.Write(b)
}

// read decodes a body, and answers by itself when it cannot.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, agentapi.MaxBody)).Decode(into); err != nil {
		problem(w, http.StatusBadRequest, "the body cannot be read: "+err.Error())
		return false
	}
	return true
}

func (j *job) serveExec(w http.ResponseWriter, r *http.Request) {
	var q agentapi.ExecRequest
	if !read(w, r, &q) {
		return
	}
	switch {
	case q.Job != j.order.Job || q.Attempt != j.order.Attempt:
		problem(w, http.StatusConflict, "this worker is for another attempt")
		return
	case !ident.Valid(string(q.Exec)) || !ident.Valid(string(q.Step)) || len(q.Command) == 0:
		problem(w, http.StatusUnprocessableEntity, "want exec_id, step_id and command")
		return
	}
	j.mu.Lock()
	if j.closing {
		j.mu.Unlock()
		problem(w, http.StatusGone, "the worker is being ended")
		return
	}
	e := j.steps[q.Step]
	if e == nil {
		if j.execs[q.Exec] != nil {
			j.mu.Unlock()
			problem(w, http.StatusConflict, "another step has this exec_id")
			return
		}
		e = start(j, q)
		j.steps[q.Step], j.execs[q.Exec] = e, e
		j.filled = true
	}
	j.mu.Unlock()
	if q.WaitMS <= 0 {
		answer(w, e.view())
		return
	}
	t := time.NewTimer(time.Duration(min(q.WaitMS, agentapi.MaxExecWait)) * time.Millisecond)
	defer t.Stop()
	select {
	case <-e.done:
		x := e.view()
		x.Log, _ = e.spool.short(agentapi.MaxInline) // a longer one is fetched
		answer(w, x)
	case <-t.C:
		answer(w, e.view())
	}
}

func (j *job) find(w http.ResponseWriter, id ident.Exec) *run {
	j.mu.Lock()
	defer j.mu.Unlock()
	e := j.execs[id]
	if e == nil {
		problem(w, http.StatusNotFound, "no such execution")
	}
	return e
}

func (j *job) serveComplete(w http.ResponseWriter, r *http.Request) {
	var q agentapi.CompleteRequest
	if !read(w, r, &q) {
		return
	}
	e := j.find(w, q.Exec)
	if e == nil {
		return
	}
	select {
	case <-e.done:
	default:
		t := time.NewTimer(time.Duration(min(max(q.WaitMS, 0), agentapi.MaxWait)) * time.Millisecond)
		defer t.Stop()
		select {
		case <-e.done:
		case <-t.C:
		case <-r.Context().Done():
		}
	}
	answer(w, e.view())
}

func (j *job) serveCancel(w http.ResponseWriter, r *http.Request) {
	var q agentapi.CancelRequest
	if !read(w, r, &q) {
		return
	}
	if e := j.find(w, q.Exec); e != nil {
		e.stop(agentapi.CodeCancel, "it was cancelled", graceOf(q.GraceMS))
		answer(w, e.view())
	}
}

// serveLogs streams an execution's frames from a byte on, until its end.
func (j *job) serveLogs(w http.ResponseWriter, r *http.Request, id ident.Exec) {
	e := j.find(w, id)
	if e == nil {
		return
	}
	at, err := strconv.ParseInt(r.URL.Query().Get("from"), 10, 64)
	if err != nil || at < 0 {
		at = 0
	}
	w.Header()["Content-Type"] = []string{"application/octet-stream"}
	out := http.NewResponseController(w)
	buf := make([]byte, 4<<10)
	for {
		n, wait, err := e.spool.read(buf, at)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
			if at += int64(n); n == len(buf) && n < streamBuffer {
				buf = make([]byte, 4*n)
			}
			continue
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler) // the reader must not take this for the end
		}
		if err := out.Flush(); err != nil {
			return
		}
		select {
		case <-wait:
		case <-r.Context().Done():
			return
		}
	}
}

// serveWorkspace unpacks an archive into the workspace, before the first step.
func (j *job) serveWorkspace(w http.ResponseWriter, r *http.Request) {
	j.mu.Lock()
	refuse := j.filled || j.closing
	j.filled = true
	j.mu.Unlock()
	if refuse {
		problem(w, http.StatusConflict, "the workspace is in use")
		return
	}
	err := unpack(j.workspace(), r.Body)
	// What comes behind the archive is read, too: the sender breaks off at the very end
	// when it finds that what it sent is not what was kept.
	if _, broke := io.Copy(io.Discard, r.Body); broke != nil {
		err = errors.Join(err, broke)
	}
	if err != nil {
		j.mu.Lock()
		j.filled = false
		j.mu.Unlock()
		problem(w, http.StatusUnprocessableEntity, "the archive cannot be unpacked: "+err.Error())
		return
	}
	answer(w, struct{}{})
}
