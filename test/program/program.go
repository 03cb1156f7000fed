// Package program runs the real program for tests and measurements, as its users
// do: from outside, by its command line, its files and its API.
package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Build compiles the program into dir and returns its path, without symbolic
// links: it is what /proc/PID/exe says of every process that runs it.
func Build(ctx context.Context, dir string) (string, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	exe := filepath.Join(dir, "fragua")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", exe, "fragua.dev/fragua/cmd/fragua").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return exe, nil
}

// A Server is one process of fragua serve.
type Server struct {
	URL    string // http://HOST:PORT
	Token  string // the owner's
	Ready  time.Duration
	cmd    *exec.Cmd
	exited chan struct{}
	err    error
}

const look = 2 * time.Millisecond // between looks at whether the server is ready

// Start starts fragua serve in the data folder dir, on a port that it picks, and
// returns when /readyz says yes; ctx bounds the wait, not the server's life. Its
// words go to log.
func Start(ctx context.Context, exe, dir string, log io.Writer, args ...string) (*Server, error) {
	s, err := Launch(exe, dir, log, args...)
	if err != nil {
		return nil, err
	}
	return s, s.Await(ctx, dir)
}

// Launch starts fragua serve as Start does, and does not wait for it.
func Launch(exe, dir string, log io.Writer, args ...string) (*Server, error) {
	// The address of a server that was killed would be taken for that of this one.
	if err := os.Remove(filepath.Join(dir, "address")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return launch(exe, dir, log, args...)
}

// LaunchPart starts fragua serve with some of the services, beside processes with the
// others. Await returns when all of them are there.
func LaunchPart(exe, dir string, log io.Writer, services []string, args ...string) (*Server, error) {
	start := launch
	if slices.Contains(services, "orchestration") { // the one whose address clients find
		start = Launch
	}
	return start(exe, dir, log, append([]string{"--services", strings.Join(services, ",")}, args...)...)
}

// StateHome is where the server in dir notes, for its user's commands, that it is there.
func StateHome(dir string) string { return dir + ".state" }

func launch(exe, dir string, log io.Writer, args ...string) (*Server, error) {
	s := &Server{exited: make(chan struct{})}
	s.cmd = exec.Command(exe, append([]string{"serve", "--data", dir, "--listen", "127.0.0.1:0"}, args...)...)
	s.cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+StateHome(dir))
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.WaitDelay = time.Second // its agents may hold the log open
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.Ready = -time.Since(began)
	go func() {
		s.err = s.cmd.Wait()
		close(s.exited)
	}()
	return s, nil
}

// Await returns when the server in dir is ready, or an error if it ended first; a
// server that is not ready when ctx ends is killed.
func (s *Server) Await(ctx context.Context, dir string) error {
	began := time.Now().Add(s.Ready)
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		if addr, err := os.ReadFile(filepath.Join(dir, "address")); err == nil && len(addr) > 0 {
			url := "http://" + strings.TrimSpace(string(addr))
			if res, err := http.Get(url + "/readyz"); err == nil {
				res.Body.Close()
				if res.StatusCode == http.StatusOK {
					s.URL, s.Ready = url, time.Since(began)
					token, err := os.ReadFile(filepath.Join(dir, "owner.token"))
					s.Token = strings.TrimSpace(string(token))
					return err
				}
			}
		}
		select {
		case <-tick.C:
		case <-s.exited:
			return fmt.Errorf("the server ended before it was ready: %w", errors.Join(s.err, context.Cause(ctx)))
		case <-ctx.Done():
			s.Kill()
			return fmt.Errorf("the server did not get ready: %w", ctx.Err())
		}
	}
}

// Pid returns the server's process.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Exited is closed when the server has ended.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// Kill ends the server by kill -9, and returns when it is gone.
func (s *Server) Kill() {
	s.cmd.Process.Kill() // fails for one that has ended: that is as good
	<-s.exited
}

// Stop ends the server by SIGTERM, and after grace by kill -9. It returns how it
// ended.
func (s *Server) Stop(grace time.Duration) error {
	s.cmd.Process.Signal(syscall.SIGTERM) // as above
	select {
	case <-s.exited:
		return s.err
	case <-time.After(grace):
		s.Kill()
		return fmt.Errorf("the server did not end within %v of SIGTERM", grace)
	}
}
