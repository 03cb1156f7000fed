package split

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/test/program"
)

func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	live(t, open(t, []string{"orchestration", "scheduling", "security", "telemetry", "console"}, []string{"worker", "execution", "artifact"}))
}

func TestAProcessForEachRoom(t *testing.T) {
	t.Parallel()
	live(t, open(t, []string{"security"}, []string{"worker"}, []string{"console"}, []string{"execution"}, []string{"telemetry"},
		[]string{"scheduling"}, []string{"orchestration"}, []string{"artifact"}))
}

const secret = "correct horse battery staple"

// live does what users do, kills each process while it is done, and sees whether the
// house is as one.
func live(t *testing.T, h *house) {
	h.call("PUT", "/secrets/TOKEN", map[string]any{"value": secret}, nil)
	gate := h.file("gate")
	h.submit("job_kept", map[string]any{
		"command": []string{"sh", "-c", `echo begun; until [ -e "$GATE" ]; do sleep 0.02; done; printf %s "$TOKEN" | sha256sum | cut -c1-64 >sum; echo over`},
		"env":     map[string]string{"GATE": gate}, "secret_refs": []string{"TOKEN"},
		"artifacts": []map[string]string{{"repository": "split", "name": "sum", "version": "1", "path": "sum"}},
	})
	j := h.reaches("job_kept", "RUNNING")
	h.eventually("the log begins", func() bool {
		h.call("GET", "/jobs/job_kept", nil, &j)
		return len(j.Steps) > 0 && j.Steps[0].Exec != ""
	})
	follow := h.request("/logs/"+j.Steps[0].Exec+"?follow=true", nil)
	if line, err := bufio.NewReader(follow.Body).ReadString('\n'); err != nil || line != "begun\n" {
		t.Fatalf("followed %q, %v", line, err)
	}
	events := h.request("/events", http.Header{"Accept": {"application/x-ndjson"}})
	if events.StatusCode != http.StatusOK {
		t.Fatalf("events: %s", events.Status)
	}

	// Each process is killed while the job runs, and work comes in meanwhile.
	var extra []string
	for i, p := range h.parts {
		h.run[i].Kill()
		id := "job_while_" + p[0] + "_was_away"
		if i == h.with("artifact") && i != h.front {
			away(t, h)
		}
		h.launch(i)
		if i == h.front {
			h.await()
		}
		h.submit(id, map[string]any{"command": []string{"echo", "hello"}})
		extra = append(extra, id)
		h.await()
	}
	for _, id := range extra {
		h.reaches(id, "SUCCEEDED")
	}
	h.end("ci.job.completed", extra...)
	follow = h.request("/logs/"+j.Steps[0].Exec+"?follow=true", nil)
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if _, err := log.ReadFrom(follow.Body); err != nil || log.String() != "begun\nover\n" {
		t.Errorf("the log is %q, %v", &log, err)
	}
	if j = h.reaches("job_kept", "SUCCEEDED"); j.Attempts != 1 {
		t.Errorf("it took %d attempts", j.Attempts)
	}
	h.end("ci.job.completed", "job_kept")
	sum := sha256.Sum256([]byte(secret))
	if got := strings.TrimSpace(h.text("/artifacts/split/sum/1/content", nil)); got != hex.EncodeToString(sum[:]) {
		t.Errorf("the artifact holds %q", got)
	}

	h.submit("job_called_off", map[string]any{"command": []string{"sleep", "600"}})
	h.reaches("job_called_off", "RUNNING")
	h.call("POST", "/jobs/job_called_off/cancel", map[string]any{"reason": "enough"}, nil)
	h.reaches("job_called_off", "CANCELLED")
	h.end("ci.job.cancelled", "job_called_off")

	upload(t, h)
	seen(t, h)
	together(t, h)
}

// away tries what is answered for a service whose process is not there.
func away(t *testing.T, h *house) {
	resp := h.request("/artifacts", nil)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("a service that is away: %s %v", resp.Status, resp.Header)
	}
	if resp := h.request("/readyz", nil); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("ready without the artifact service: %s", resp.Status)
	}
}

// upload sends an artifact that no process may hold in memory.
func upload(t *testing.T, h *house) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB, twice what a body may have otherwise
	sum := sha256.Sum256(body)
	url := h.run[h.front].URL + "/artifacts?repository=split&name=big&version=1&checksum=sha256:" + hex.EncodeToString(sum[:])
	req, err := http.NewRequestWithContext(t.Context(), "POST", url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.run[h.front].Token)
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Errorf("upload: %s", resp.Status)
	}
	if got := h.text("/artifacts/split/big/1/content", nil); got != string(body) {
		t.Errorf("%d bytes came back, want %d", len(got), len(body))
	}
	token := h.run[h.front].Token
	h.run[h.front].Token = "nobody"
	if got := h.request("/artifacts", nil); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("with a token of nobody: %s", got.Status)
	}
	h.run[h.front].Token = token
}

// seen looks whether telemetry knows the whole house.
func seen(t *testing.T, h *house) {
	h.eventually("the spans of all services", func() bool {
		traces := h.text("/traces?job_id=job_called_off&limit=1000", nil)
		for _, span := range []string{"create_job", "schedule_job", "create_worker"} {
			if !strings.Contains(traces, `"`+span+`"`) {
				return false
			}
		}
		return true
	})
	if m := h.text("/metrics", nil); !strings.Contains(m, `fragua_jobs_ended_total{state="CANCELLED"} 1`) {
		t.Error("the metrics do not know the job that was called off")
	}
}

// together ends all processes, and has one do the work of all.
func together(t *testing.T, h *house) {
	described := h.text("/openapi.json", nil)
	for i, s := range h.run {
		if err := s.Stop(patience); err != nil {
			t.Errorf("%v: %v", h.parts[i], err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	one, err := program.Start(ctx, h.exe, h.dir, h.log)
	if err != nil {
		t.Fatal(err)
	}
	h.run, h.front = []*program.Server{one}, 0
	h.parts = [][]string{{"all"}}
	if h.text("/openapi.json", nil) != described {
		t.Error("the API's description is another one when all services are in one process")
	}
	h.reaches("job_kept", "SUCCEEDED")
	h.submit("job_in_one", map[string]any{"command": []string{"true"}})
	h.reaches("job_in_one", "SUCCEEDED")
	h.end("ci.job.completed", "job_in_one")
}

// TestLocks says which processes may share a data folder.
func TestLocks(t *testing.T) {
	t.Parallel()
	h := open(t, []string{"orchestration", "scheduling", "security", "telemetry", "console", "worker", "execution"}, []string{"artifact"})
	for _, services := range []string{"all", "artifact", "worker,artifact"} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		out, err := exec.CommandContext(ctx, exe, "serve", "--data", h.dir, "--services", services, "--listen", "127.0.0.1:0").CombinedOutput()
		cancel()
		if err == nil || !strings.Contains(string(out), "another fragua works in this data folder") {
			t.Errorf("--services %s beside others: %v, %s", services, err, out)
		}
	}
	for _, services := range []string{"", "worker,,artifact", "worker,worker", "wroker"} {
		out, err := exec.CommandContext(t.Context(), exe, "serve", "--data", t.TempDir(), "--services", services).CombinedOutput()
		exit, _ := errors.AsType[*exec.ExitError](err)
		if exit == nil || exit.ExitCode() != 2 || !strings.Contains(string(out), "orchestration") {
			t.Errorf("--services %q: %v, %s", services, err, out)
		}
	}
	// The client commands find the process that is there for them.
	file := filepath.Join(t.TempDir(), "fragua.yaml")
	if err := os.WriteFile(file, []byte("name: p\njobs:\n  a: {command: [echo, hello]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"run", file}, {"worker", "list"}, {"node", "list"}, {"artifact", "list"}, {"whoami"}} {
		if out, err := exec.CommandContext(t.Context(), exe, append([]string{"--data", h.dir}, args...)...).CombinedOutput(); err != nil {
			t.Errorf("fragua %v: %v\n%s", args, err, out)
		}
	}
}
