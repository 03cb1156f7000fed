// Package providertest says what every provider does, as tests: whoever makes
// workers passes them.
package providertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/identity"
	"fragua.dev/fragua/contract/logframe"
	"fragua.dev/fragua/execution/agentclient"
	"fragua.dev/fragua/worker/provider"
)

const tenant ident.Tenant = "acme"

// Bench is a provider with what is needed to use its workers.
type Bench struct {
	P      provider.Provider
	ca     identity.Authority
	dialer *agentclient.Dialer
	Lease  time.Duration
	Alone  time.Duration
}

// NewBench returns a bench of p.
func NewBench(t testing.TB, p provider.Provider) *Bench {
	t.Helper()
	ca := NewAuthority(t)
	c, err := ca.Issue(context.Background(), identity.Room("execution"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	roots, _ := ca.Roots()
	return &Bench{P: p, ca: ca, dialer: agentclient.NewDialer(c, roots), Lease: 30 * time.Second}
}

// Make makes a worker that serves, and returns its client.
func (b *Bench) Make(id ident.Worker, attempt int) (*agentclient.Client, provider.Made, error) {
	ctx := context.Background()
	made, err := b.P.Create(ctx, provider.Request{Worker: id, Tenant: tenant, Job: "job_1", Attempt: attempt})
	if err != nil {
		return nil, made, err
	}
	cert, err := b.ca.Issue(ctx, identity.Worker(tenant, id), time.Hour)
	if err != nil {
		return nil, made, err
	}
	_, roots := b.ca.Roots()
	err = b.P.ConfigureSecurity(ctx, id, provider.Security{Certificate: cert, Roots: roots, Client: identity.Room("execution"), Lease: b.Lease, Alone: b.Alone})
	if err != nil {
		return nil, made, err
	}
	return b.Client(made, id), made, nil
}

// Client returns a client of the worker called id.
func (b *Bench) Client(made provider.Made, id ident.Worker) *agentclient.Client {
	return b.dialer.Dial(made.Address, tenant, id)
}

// Run runs a command on a worker to its end, and returns that and what it printed.
func (b *Bench) Run(c *agentclient.Client, r agentapi.ExecRequest) (agentapi.Exec, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if r.Job == "" {
		r.Job, r.Attempt = "job_1", 1
	}
	if r.Step == "" {
		r.Step = ident.Step("stp_" + r.Exec)
	}
	x, err := c.Exec(ctx, r)
	if err != nil {
		return x, "", err
	}
	logs, err := c.Logs(ctx, r.Exec, 0)
	if err != nil {
		return x, "", err
	}
	defer logs.Close()
	var out bytes.Buffer
	frames := logframe.NewReader(logs)
	for {
		f, err := frames.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return x, out.String(), err
		}
		out.Write(f.Text)
	}
	x, err = c.Complete(ctx, agentapi.CompleteRequest{Exec: r.Exec, WaitMS: agentapi.MaxWait})
	return x, out.String(), err
}

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

// Run runs the suite; open makes a fresh provider for each test, and closes it.
func Run(t *testing.T, open func(t *testing.T) provider.Provider) {
	make := func(t *testing.T, id ident.Worker) (*Bench, *agentclient.Client, provider.Made) {
		t.Helper()
		b := NewBench(t, open(t))
		c, made, err := b.Make(id, 1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return b, c, made
	}

	t.Run("a worker runs steps and is gone when it is terminated", func(t *testing.T) {
		b, c, _ := make(t, "wrk_1")
		x, out, err := b.Run(c, agentapi.ExecRequest{Exec: "exe_1", Command: sh("echo out; echo err >&2; exit 3")})
		if err != nil || x.State != agentapi.Failed || x.ExitCode != 3 || x.Code != agentapi.CodeExit {
			t.Errorf("%+v, %v", x, err)
		}
		if !strings.Contains(out, "out\n") || !strings.Contains(out, "err\n") {
			t.Errorf("printed %q", out)
		}
		for range 2 { // again does nothing
			if code, err := b.P.Terminate(t.Context(), "wrk_1", time.Second); code != 0 || err != nil && !errors.Is(err, provider.ErrGone) {
				t.Errorf("terminate: %d, %v", code, err)
			}
		}
		if _, err := c.Exec(t.Context(), agentapi.ExecRequest{Exec: "exe_2", Step: "stp_2", Job: "job_1", Attempt: 1, Command: sh("true")}); err == nil {
			t.Error("a terminated worker took a step")
		}
	})

	t.Run("the same step starts once, another attempt is refused", func(t *testing.T) {
		b, c, _ := make(t, "wrk_1")
		file := filepath.Join(t.TempDir(), "count")
		r := agentapi.ExecRequest{Exec: "exe_1", Step: "stp_1", Job: "job_1", Attempt: 1, Command: sh("echo x >> " + file)}
		for range 3 {
			if _, _, err := b.Run(c, r); err != nil {
				t.Fatal(err)
			}
		}
		if got, _ := os.ReadFile(file); string(got) != "x\n" {
			t.Errorf("it ran %d times", len(got)/2)
		}
		r.Attempt, r.Step, r.Exec = 2, "stp_2", "exe_2"
		if _, err := c.Exec(t.Context(), r); !errors.Is(err, agentclient.ErrRefused) {
			t.Errorf("another attempt: %v", err)
		}
	})

	t.Run("only the right caller gets in, only at the right worker", func(t *testing.T) {
		b, _, made := make(t, "wrk_1")
		if _, err := b.Client(made, "wrk_2").Lease(t.Context()); err == nil {
			t.Error("the caller spoke to a worker of another name")
		}
		stranger := NewBench(t, b.P)
		if _, err := stranger.Client(made, "wrk_1").Lease(t.Context()); err == nil {
			t.Error("a caller of another authority got in")
		}
	})

	t.Run("a kept connection reaches the next worker when that has proved who it is", func(t *testing.T) {
		b, c, first := make(t, "wrk_1")
		step := agentapi.ExecRequest{Exec: "exe_1", Step: "stp_1", Job: "job_1", Attempt: 1, Command: sh("true")}
		if _, err := c.Exec(t.Context(), step); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if _, err := b.P.Terminate(t.Context(), "wrk_1", time.Second); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Client(first, "wrk_1").Exec(t.Context(), step); err == nil {
			t.Error("a worker that was ended took a step on the connection that was kept")
		}
		next, second, err := b.Make("wrk_2", 1)
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		if second.Address == first.Address { // the provider uses its agents again
			if _, err := b.Client(second, "wrk_1").Exec(t.Context(), step); !errors.Is(err, agentclient.ErrRefused) && !errors.Is(err, agentclient.ErrUnreachable) {
				t.Errorf("the worker before: %v", err)
			}
			if _, err := b.Client(second, "wrk_3").Exec(t.Context(), step); err == nil {
				t.Error("a worker of another name took a step")
			}
		}
		if _, err := next.Exec(t.Context(), step); err != nil {
			t.Errorf("the next worker: %v", err)
		}
	})

	t.Run("the environment is what was asked for and no more", func(t *testing.T) {
		t.Setenv("FRAGUA_TEST_SECRET", "leaked")
		b, c, _ := make(t, "wrk_1")
		_, out, err := b.Run(c, agentapi.ExecRequest{Exec: "exe_1", Command: sh("env; pwd"), Env: map[string]string{"GIVEN": "yes"}})
		if err != nil || strings.Contains(out, "leaked") || !strings.Contains(out, "GIVEN=yes\n") || !strings.Contains(out, "CI=true\n") {
			t.Errorf("%v\n%s", err, out)
		}
		home := ""
		for line := range strings.Lines(out) {
			if v, ok := strings.CutPrefix(line, "HOME="); ok {
				home = v
			}
		}
		if home == "" || !strings.HasSuffix(out, home) {
			t.Errorf("HOME is %q, and the step began elsewhere:\n%s", home, out)
		}
	})

	t.Run("secrets are masked", func(t *testing.T) {
		b, c, _ := make(t, "wrk_1")
		_, out, err := b.Run(c, agentapi.ExecRequest{
			Exec: "exe_1", Command: sh(`echo "it is $TOKEN"; printf %s "$TOKEN" | base64; printf hun; printf 'ter22x\n'`), Secrets: map[string]string{"TOKEN": "hunter22x"},
		})
		if err != nil || strings.Contains(out, "hunter22x") || !strings.Contains(out, "it is ***") || strings.Contains(out, "aHVudGVyMjJ4") {
			t.Errorf("%v\n%s", err, out)
		}
	})

	t.Run("what an earlier step was told is masked", func(t *testing.T) {
		b, c, _ := make(t, "wrk_1")
		_, _, err := b.Run(c, agentapi.ExecRequest{Exec: "exe_1", Command: sh(`echo "$TOKEN" >kept`), Secrets: map[string]string{"TOKEN": "hunter22x"}})
		if err != nil {
			t.Fatal(err)
		}
		_, out, err := b.Run(c, agentapi.ExecRequest{Exec: "exe_2", Command: sh(`cat kept; echo "$TOKEN"; echo pass''word`), Hidden: []string{"password"}})
		if err != nil || out != "***\n\n***\n" {
			t.Errorf("%v\n%s", err, out)
		}
	})

	t.Run("a step that runs too long is ended", func(t *testing.T) {
		b, c, _ := make(t, "wrk_1")
		x, _, err := b.Run(c, agentapi.ExecRequest{Exec: "exe_1", Command: sh("trap '' TERM; sleep 60 & wait; sleep 60"), TimeoutMS: 100, GraceMS: 100})
		if err != nil || x.State != agentapi.Failed || x.Code != agentapi.CodeTimeout {
			t.Errorf("%+v, %v", x, err)
		}
	})

	t.Run("a missing program is told as that", func(t *testing.T) {
		b, c, _ := make(t, "wrk_1")
		x, _, err := b.Run(c, agentapi.ExecRequest{Exec: "exe_1", Command: []string{"no-such-program"}})
		if err != nil || x.Code != agentapi.CodeStart || x.ExitCode != -1 {
			t.Errorf("%+v, %v", x, err)
		}
	})

	t.Run("nothing survives the worker, also no daemon", func(t *testing.T) {
		b, c, _ := make(t, "wrk_1")
		pids := filepath.Join(t.TempDir(), "pids")
		_, _, err := b.Run(c, agentapi.ExecRequest{Exec: "exe_1", Command: sh(
			"(setsid sh -c 'echo $$ >> " + pids + "; trap \"\" TERM HUP; exec sleep 300' >/dev/null 2>&1 </dev/null &) ; while [ ! -s " + pids + " ]; do sleep 0.01; done")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.P.Terminate(t.Context(), "wrk_1", time.Second); err != nil {
			t.Fatal(err)
		}
		for _, pid := range read(t, pids) {
			if alive(pid) {
				t.Errorf("process %d is alive", pid)
			}
		}
	})

	t.Run("a lease that runs out ends the worker, and is told once", func(t *testing.T) {
		b := NewBench(t, open(t))
		b.Lease = 300 * time.Millisecond
		c, _, err := b.Make("wrk_1", 1)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if e := wait(t, b.P, "wrk_1"); !e.Expired {
			t.Errorf("it is not told that the lease ran out: %+v", e)
		}
		if _, err := b.P.Terminate(t.Context(), "wrk_1", 0); !errors.Is(err, provider.ErrGone) {
			t.Errorf("terminate after the end: %v", err)
		}
	})

	t.Run("a worker whose provider is closed lives on for a while", func(t *testing.T) {
		b, c := takenOver(t, open, time.Hour)
		for deadline := time.Now().Add(20 * time.Second); ; {
			r, err := c.Lease(t.Context())
			if err == nil && time.Until(r.Expires) > b.Alone-time.Minute {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the lease is that of a worker which is not alone: %v, %v", r.Expires, err)
			}
		}
	})

	t.Run("a step of a worker that was taken over is told to end", func(t *testing.T) {
		b, c := takenOver(t, open, 0)
		said, over := "", outcomes(1)
		began := filepath.Join(t.TempDir(), "began")
		go func() {
			var err error
			_, said, err = b.Run(c, agentapi.ExecRequest{Exec: "exe_1", Command: sh("trap 'echo bye; exit 3' TERM; echo $$ > " + began + "; sleep 300 & wait")})
			over <- err
		}()
		for deadline := time.Now().Add(20 * time.Second); len(read(t, began)) == 0; {
			if time.Now().After(deadline) {
				t.Fatal("the step did not begin")
			}
		}
		if _, err := b.P.Terminate(t.Context(), "wrk_1", 10*time.Second); err != nil {
			t.Fatal(err)
		}
		if err := <-over; said != "bye\n" {
			t.Errorf("it said %q, %v", said, err)
		}
	})

	t.Run("a worker that is alone leaves nothing when its lease runs out", func(t *testing.T) {
		b := NewBench(t, open(t))
		b.Lease = 2 * time.Second
		c, _, err := b.Make("wrk_1", 1)
		if err != nil {
			t.Fatal(err)
		}
		pids := filepath.Join(t.TempDir(), "pids")
		_, err = c.Exec(t.Context(), agentapi.ExecRequest{Exec: "exe_1", Step: "stp_1", Job: "job_1", Attempt: 1, Command: sh(
			"(setsid sh -c 'echo $$ >> " + pids + "; trap \"\" TERM HUP; exec sleep 300' >/dev/null 2>&1 </dev/null &); sleep 300")})
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(20 * time.Second); len(read(t, pids)) == 0; {
			if time.Now().After(deadline) {
				t.Fatal("the step did not begin")
			}
		}
		c.Close()
		if err := b.P.Close(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if !alive(read(t, pids)[0]) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("process %d is alive", read(t, pids)[0])
			}
		}
	})

	t.Run("many at once", func(t *testing.T) {
		b := NewBench(t, open(t))
		errs := outcomes(8)
		for i := range cap(errs) {
			go func() {
				id := ident.Worker(fmt.Sprintf("wrk_%d", i))
				c, _, err := b.Make(id, 1)
				if err == nil {
					_, _, err = b.Run(c, agentapi.ExecRequest{Exec: "exe_1", Command: sh("echo $FRAGUA_WORKER_ID")})
					c.Close()
				}
				_, err2 := b.P.Terminate(context.Background(), id, time.Second)
				errs <- errors.Join(err, err2)
			}()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

// takenOver returns a worker whose provider was closed, and which the next one, now the
// bench's, has taken over.
func takenOver(t *testing.T, open func(t *testing.T) provider.Provider, alone time.Duration) (*Bench, *agentclient.Client) {
	t.Helper()
	b := NewBench(t, open(t))
	b.Alone = alone
	c, made, err := b.Make("wrk_1", 1)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := b.P.Close(); err != nil {
		t.Fatal(err)
	}
	next := open(t)
	b.P = next
	if alive, err := next.Adopt(t.Context(), []provider.Made{made}); err != nil || len(alive) != 1 {
		t.Fatalf("adopted: %v, %v", alive, err)
	}
	c = b.Client(made, "wrk_1")
	t.Cleanup(func() {
		c.Close()
		next.Terminate(context.Background(), "wrk_1", 0) // it is gone where the test ended it
	})
	return b, c
}

func outcomes(n int) chan error { return make(chan error, n) }

func wait(t *testing.T, p provider.Provider, id ident.Worker) (e provider.Ended) {
	t.Helper()
	select {
	case e = <-p.Events():
		if e.Worker != id {
			t.Errorf("the end of %s was told", e.Worker)
		}
	case <-time.After(20 * time.Second):
		t.Error("the end was not told")
	}
	select {
	case e := <-p.Events():
		t.Errorf("told again: %+v", e)
	default:
	}
	return e
}

func read(t *testing.T, file string) (pids []int) {
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, f := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// alive says whether a process runs; one that nobody has waited for does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}
