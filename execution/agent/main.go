package agent

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fragua.dev/fragua/contract/agentapi"
)

const (
	controlFD = 3
	maxOrder  = 1 << 20 // bytes of one order
	header    = 10 * time.Second
	idle      = 2 * time.Minute
)

// Main runs an agent until it is told to end, and returns its exit code. args are
// those after the program's own; there are none.
func Main(_ []string, log *slog.Logger) int {
	relax()
	control := os.NewFile(controlFD, "control")
	if _, err := unix.FcntlInt(controlFD, unix.F_GETFD, 0); err != nil {
		fmt.Fprintln(os.Stderr, "fragua agent is started by fragua serve, and has no use by itself")
		return 2
	}
	if err := keepToItself(); err != nil {
		log.Error("what the server had open stays open for steps", "error", err)
		return 1
	}
	_ = os.WriteFile("/proc/self/comm", []byte("fragua"), 0) // for people only: the kernel would call it exe
	// What a step leaves behind becomes this process's child, and is ended by it.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		log.Error("not a subreaper", "error", err)
		return 1
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Error("no address", "error", err)
		return 1
	}
	a := &agent{log: log, control: control, address: l.Addr().String()}
	config := &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: a.tls}
	server := &http.Server{
		Handler: a, ReadHeaderTimeout: header, IdleTimeout: idle, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, boundKey{}, &bound{})
		},
	}
	go func() {
		err := server.Serve(tls.NewListener(l, config))
		log.Error("the agent takes no more calls", "error", err)
	}()
	if err := a.report(agentapi.Report{Op: "ready", Address: a.address}); err != nil {
		return 1
	}
	return a.obey()
}

// keepToItself keeps steps from inheriting what is open here, or was where the
// server was started.
func keepToItself() error {
	err := unix.CloseRange(controlFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	open, err := os.ReadDir("/proc/self/fd") // a kernel before 5.11
	if err != nil {
		return err
	}
	for _, e := range open {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= controlFD {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}

// agent is this process.
type agent struct {
	log     *slog.Logger
	control *os.File
	address string
	saying  sync.Mutex
	job     atomic.Pointer[job] // nil between jobs

	roots *x509.CertPool // of the orders until now
}

// bound is the job that a connection reaches: the one it was made for, until the
// caller has asked for proof that this process is the worker of the next.
type bound struct{ job atomic.Pointer[job] }

// boundKey finds it in a connection's context.
type boundKey struct{}

var errIdle = errors.New("no worker is here")

// tls makes a connection one to the job of now.
func (a *agent) tls(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	j := a.job.Load()
	if j == nil {
		return nil, errIdle
	}
	hello.Context().Value(boundKey{}).(*bound).job.Store(j)
	return j.tls, nil
}

func (a *agent) report(r agentapi.Report) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	a.saying.Lock()
	defer a.saying.Unlock()
	_, err = a.control.Write(append(b, '\n'))
	return err
}

// obey follows orders until there are no more. A process that nobody commands
// any longer ends, but not before its job: another server may adopt it.
func (a *agent) obey() int {
	in := bufio.NewScanner(a.control)
	in.Buffer(make([]byte, 64<<10), maxOrder)
	for in.Scan() {
		var o agentapi.Order
		if err := json.Unmarshal(in.Bytes(), &o); err != nil {
			a.log.Error("an order cannot be read", "error", err)
			return 1
		}
		switch o.Op {
		case "take":
			err := a.take(o)
			r := agentapi.Report{Op: "taken", Worker: o.Worker, Address: a.address}
			if err != nil {
				r.Error = err.Error()
			}
			if a.report(r) != nil {
				return 1
			}
		case "end":
			clean := a.end(time.Duration(o.GraceMS) * time.Millisecond)
			if a.report(agentapi.Report{Op: "ended", Worker: o.Worker, Clean: clean}) != nil || !clean {
				return 0
			}
		}
	}
	if j := a.job.Load(); j != nil {
		j.alone()
		select {} // until the end of its lease ends the process, and what the job left
	}
	return 0
}

// take makes this process the worker of a job.
func (a *agent) take(o agentapi.Order) error {
	if a.job.Load() != nil {
		return errors.New("this agent has a job")
	}
	if a.roots == nil || len(o.Roots) > 0 {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(o.Roots) {
			return errors.New("no root certificate")
		}
		a.roots = roots
	}
	j, err := newJob(o, a.roots, a.log)
	if err != nil {
		return err
	}
	a.job.Store(j)
	go func() { // a lease that ends, ends the process: whoever gave it is told by that
		<-j.expired
		if a.job.Load() == j {
			a.log.Warn("nobody called for too long", "worker_id", o.Worker)
			a.end(0)
			os.Exit(agentapi.ExitExpired)
		}
	}()
	return nil
}

// end ends the job, and says whether nothing of it is left.
func (a *agent) end(grace time.Duration) bool {
	j := a.job.Swap(nil)
	if j == nil {
		return true
	}
	return j.close(grace)
}
