package process_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/execution/agent"
	"fragua.dev/fragua/worker/process"
	"fragua.dev/fragua/worker/provider"
	"fragua.dev/fragua/worker/provider/providertest"
)

// TestMain lets this program be the agent, as cmd/fragua does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "agent" {
		os.Exit(agent.Main(nil, slog.New(slog.NewTextHandler(os.Stderr, nil))))
	}
	os.Exit(m.Run())
}

func open(t testing.TB, dir string) *process.Provider {
	t.Helper()
	p, err := process.New(process.Config{Dir: dir, Command: []string{"/proc/self/exe", "agent"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestProvider(t *testing.T) {
	providertest.Run(t, func(t *testing.T) provider.Provider { return open(t, t.TempDir()) })
}

// pidOf returns the process of a worker.
func pidOf(t *testing.T, m provider.Made) int {
	t.Helper()
	left, _, _ := strings.Cut(m.Handle, ":")
	pid, err := strconv.Atoi(left)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// daemon is a step that leaves a process behind, and writes its pid to file.
func daemon(file string) []string {
	return []string{"/bin/sh", "-c", "(setsid sh -c 'echo $$ > " + file + "; exec sleep 300' >/dev/null 2>&1 </dev/null &); sleep 300"}
}

func pidIn(t *testing.T, file string) int {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		b, _ := os.ReadFile(file)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			return pid
		}
	}
	t.Fatal("the step did not begin")
	return 0
}

func lives(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func gone(t *testing.T, what string, pid int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if !lives(pid) {
			return
		}
	}
	t.Errorf("%s is alive", what)
}

func TestAKilledAgentLeavesNothingAndIsToldOnce(t *testing.T) {
	b := providertest.NewBench(t, open(t, t.TempDir()))
	c, made, err := b.Make("wrk_1", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	file := filepath.Join(t.TempDir(), "pid")
	if _, err := c.Exec(t.Context(), agentapi.ExecRequest{Exec: "exe_1", Step: "stp_1", Job: "job_1", Attempt: 1, Command: daemon(file)}); err != nil {
		t.Fatal(err)
	}
	pid := pidIn(t, file)
	syscall.Kill(pidOf(t, made), syscall.SIGKILL)
	select {
	case e := <-b.P.Events():
		if e.Worker != "wrk_1" || e.Reason == "" {
			t.Errorf("%+v", e)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("its end was not told")
	}
	gone(t, "what it left", pid)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); os.IsNotExist(err) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("its parent took no note of its end: it stays as a zombie")
		}
	}
}

// TestWorkersMadeByHandTakeNoPlaceOfJobs has as many of them as jobs may have.
func TestWorkersMadeByHandTakeNoPlaceOfJobs(t *testing.T) {
	small := func() *process.Provider {
		p, err := process.New(process.Config{Dir: t.TempDir(), Command: []string{"/proc/self/exe", "agent"}, MaxWorkers: 1, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p
	}
	first := small()
	var made []provider.Made
	for _, r := range []provider.Request{{Worker: "hand_1"}, {Worker: "hand_2"}, {Worker: "wrk_1", Job: "job_1", Attempt: 1}} {
		m, err := first.Create(t.Context(), r)
		if err != nil {
			t.Fatalf("%s: %v", r.Worker, err)
		}
		made = append(made, m)
	}
	if _, err := first.Create(t.Context(), provider.Request{Worker: "wrk_2", Job: "job_2", Attempt: 1}); !errors.Is(err, provider.ErrCapacity) {
		t.Errorf("a second worker for a job: %v", err)
	}
	second := small()
	if alive, err := second.Adopt(t.Context(), made[:2]); err != nil || len(alive) != 2 {
		t.Fatalf("alive %v, %v", alive, err)
	}
	if _, err := second.Create(t.Context(), provider.Request{Worker: "wrk_3", Job: "job_3", Attempt: 1}); err != nil {
		t.Errorf("beside those that were adopted: %v", err)
	}
}

// TestADaemonWithoutATraceEndsWithItsAgent leaves one that has no environment, and works
// in no folder of the job; others go on: children of this process, and another worker's.
func TestADaemonWithoutATraceEndsWithItsAgent(t *testing.T) {
	own := exec.Command("sleep", "300")
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	defer own.Wait()
	defer own.Process.Kill()
	b := providertest.NewBench(t, open(t, t.TempDir()))
	dir := t.TempDir()
	begin := func(w ident.Worker) (agent, left int) {
		t.Helper()
		c, made, err := b.Make(w, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		file := filepath.Join(dir, string(w))
		command := []string{"/bin/sh", "-c", "(cd / && env -i setsid sh -c 'echo $$ > " + file + "; exec sleep 300' >/dev/null 2>&1 </dev/null &); sleep 300"}
		if _, err := c.Exec(t.Context(), agentapi.ExecRequest{Exec: "exe_1", Step: "stp_1", Job: "job_1", Attempt: 1, Command: command}); err != nil {
			t.Fatal(err)
		}
		return pidOf(t, made), pidIn(t, file)
	}
	agent, left := begin("wrk_1")
	_, others := begin("wrk_2")
	syscall.Kill(agent, syscall.SIGKILL)
	select {
	case <-b.P.Events():
	case <-time.After(10 * time.Second):
		t.Fatal("its end was not told")
	}
	if lives(left) {
		t.Error("the daemon is alive when the end of its worker is told")
		syscall.Kill(left, syscall.SIGKILL)
	}
	for what, pid := range map[string]int{"what another worker left": others, "a child of this process": own.Process.Pid} {
		if !lives(pid) {
			t.Errorf("%s was ended", what)
		}
	}
	if _, _, err := b.Make("wrk_3", 1); err != nil {
		t.Error(err)
	}
	for _, w := range []ident.Worker{"wrk_2", "wrk_3"} {
		if _, err := b.P.Terminate(t.Context(), w, 0); err != nil {
			t.Error(err)
		}
	}
	gone(t, "what another worker left", others)
}

func TestAWorkerIsAdoptedAfterARestart(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	b := providertest.NewBench(t, first)
	c, made, err := b.Make("wrk_1", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, _, err := b.Make("wrk_lost", 1); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pid")
	if _, err := c.Exec(t.Context(), agentapi.ExecRequest{Exec: "exe_1", Step: "stp_1", Job: "job_1", Attempt: 1, Command: daemon(file)}); err != nil {
		t.Fatal(err)
	}
	pid := pidIn(t, file)
	first.Close()
	second := open(t, dir)
	alive, err := second.Adopt(t.Context(), []provider.Made{made, {Worker: "wrk_old", Handle: "1:1"}})
	if err != nil || len(alive) != 1 || alive[0] != "wrk_1" {
		t.Fatalf("alive %v, %v", alive, err)
	}
	if x, err := c.Complete(t.Context(), agentapi.CompleteRequest{Exec: "exe_1", WaitMS: 1}); err != nil || x.State != agentapi.Started {
		t.Errorf("the adopted worker: %+v, %v", x, err)
	}
	if _, err := second.Terminate(t.Context(), "wrk_1", 0); err != nil {
		t.Error(err)
	}
	gone(t, "what the adopted worker left", pid)
	gone(t, "the adopted worker", pidOf(t, made))
	if left, _ := filepath.Glob(filepath.Join(dir, "slot-*")); len(left) > 0 {
		t.Errorf("left in the folder: %v", left)
	}
}

// TestAFolderThatCannotBeRemovedStopsNoStart makes a file in it immutable, also for root.
func TestAFolderThatCannotBeRemovedStopsNoStart(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "slot-1", "workspace", "file")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	set := func(flag, file string) error { return exec.Command("chattr", flag, file).Run() }
	if set("+i", file) != nil || os.Remove(file) == nil {
		t.Skip("files cannot be made immutable here")
	}
	aside := func() string {
		found, err := filepath.Glob(filepath.Join(dir, "*-slot-1-*", "workspace", "file"))
		if err != nil || len(found) > 1 {
			t.Fatalf("%v, %v", found, err)
		}
		if len(found) == 0 {
			return ""
		}
		return found[0]
	}
	t.Cleanup(func() {
		for _, f := range []string{file, aside()} {
			_ = set("-i", f) // wherever it is, or is not
		}
	})
	start := func() {
		t.Helper()
		p := open(t, dir)
		defer p.Close()
		if _, err := p.Adopt(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	start()
	if _, err := os.Stat(filepath.Join(dir, "slot-1")); !os.IsNotExist(err) || aside() == "" {
		t.Errorf("it is not put aside: %v", err)
	}
	start() // it is found once more
	if err := set("-i", aside()); err != nil {
		t.Fatal(err)
	}
	start()
	if f := aside(); f != "" {
		t.Errorf("it is still there: %s", f)
	}
}

// TestStepsInheritNothing has this process leave a file open for its children, and
// looks at what a step has open.
func TestStepsInheritNothing(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "inherited")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Open(secret, syscall.O_RDONLY, 0) // without O_CLOEXEC
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	b := providertest.NewBench(t, open(t, t.TempDir()))
	c, _, err := b.Make("wrk_1", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, text, err := b.Run(c, agentapi.ExecRequest{Exec: "exe_1", Command: []string{"/bin/sh", "-c", "for f in /proc/self/fd/*; do readlink $f; done; true"}})
	if err != nil || !strings.Contains(text, "/dev/null") || strings.Contains(text, "inherited") {
		t.Errorf("%v, a step has open:\n%s", err, text)
	}
}

func BenchmarkTrueJob(b *testing.B) {
	for _, at := range []int{1, 2, 8} {
		b.Run(fmt.Sprintf("at=%d", at), func(b *testing.B) {
			bench := providertest.NewBench(b, open(b, b.TempDir()))
			var n atomic.Int64
			b.SetParallelism(max(1, at/2))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					id := ident.Worker(fmt.Sprintf("wrk_%d", n.Add(1)))
					c, _, err := bench.Make(id, 1)
					if err != nil {
						b.Error(err)
						return
					}
					if x, _, err := bench.Run(c, agentapi.ExecRequest{Exec: "exe_1", Command: []string{"true"}}); err != nil || x.State != agentapi.Completed {
						b.Errorf("%+v, %v", x, err)
					}
					c.Close()
					if _, err := bench.P.Terminate(b.Context(), id, time.Second); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}

func BenchmarkRawForkExec(b *testing.B) {
	for _, at := range []int{2, 8} {
		b.Run(fmt.Sprintf("at=%d", at), func(b *testing.B) {
			b.SetParallelism(at / 2)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					var out bytes.Buffer
					cmd := exec.Command("true")
					cmd.Stdout, cmd.Stderr = &out, &out
					if err := cmd.Run(); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}
