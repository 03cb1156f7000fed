package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/logframe"
	"fragua.dev/fragua/internal/mask"
)

const (
	pipeSize  = 1 << 20                // of each output pipe, where the kernel lets us
	afterLife = 200 * time.Millisecond // for output that is still in the pipes when a step has ended
	nameSize  = 100                    // of a program in a message
)

// run is one execution of a step.
type run struct {
	job   *job
	spool *spool
	done  chan struct{} // closed when everything of it has ended, and its output is whole

	mu    sync.Mutex
	x     agentapi.Exec
	pid   int    // of its process group; 0 when there is none
	why   string // it was stopped
	words string
	kill  *time.Timer
}

// start runs a step. What cannot be started is an execution that failed. Who calls it
// holds j.mu.
func start(j *job, r agentapi.ExecRequest) *run {
	e := &run{job: j, done: make(chan struct{}), x: agentapi.Exec{Exec: r.Exec, Step: r.Step, State: agentapi.Started, Started: time.Now().UTC()}}
	e.spool = newSpool(filepath.Join(j.order.Dir, "log-"+string(r.Exec)))
	set := mask.New(j.hide(r))
	out, err := newPipe()
	if err == nil {
		var errs pipe
		if errs, err = newPipe(); err == nil {
			err = e.spawn(r, out, errs, set)
		} else {
			out.close()
		}
	}
	if err != nil {
		e.fail(hide(set, err.Error()))
	}
	return e
}

// spawn starts the process and what follows it.
func (e *run) spawn(r agentapi.ExecRequest, out, errs pipe, set *mask.Set) error {
	defer out.w.Close()
	defer errs.w.Close()
	env := environment(e.job, r)
	program, err := lookPath(r.Command[0], env, e.job.workspace())
	if errors.Is(err, errNoProgram) { // its name is cut when no part of it is a secret's any more
		err = fmt.Errorf("there is no program %s in PATH", called(hide(set, r.Command[0])))
	}
	if err != nil {
		return errors.Join(err, out.r.Close(), errs.r.Close())
	}
	null, err := devNull()
	if err != nil {
		return errors.Join(err, out.r.Close(), errs.r.Close())
	}
	p, err := os.StartProcess(program, r.Command, &os.ProcAttr{
		Dir: e.job.workspace(), Env: env, Files: []*os.File{null, out.w, errs.w}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		if _, gone := os.Stat(e.job.workspace()); gone != nil {
			err = errors.New("the workspace is gone: a step before has removed or moved it")
		}
		return errors.Join(err, out.r.Close(), errs.r.Close())
	}
	e.pid, e.x.Started = p.Pid, time.Now().UTC()
	var limit *time.Timer
	if r.TimeoutMS > 0 {
		limit = time.AfterFunc(time.Duration(r.TimeoutMS)*time.Millisecond, func() {
			e.stop(agentapi.CodeTimeout, fmt.Sprintf("it ran longer than its %v", time.Duration(r.TimeoutMS)*time.Millisecond), graceOf(r.GraceMS))
		})
	}
	var pumps sync.WaitGroup
	var sizes [2]agentapi.LogSize
	pumps.Go(func() { sizes[0] = pump(out.r, e.spool, logframe.Stdout, mask.NewMasker(set)) })
	pumps.Go(func() { sizes[1] = pump(errs.r, e.spool, logframe.Stderr, mask.NewMasker(set)) })
	go func() {
		state, err := p.Wait()
		if limit != nil {
			limit.Stop()
		}
		// The step has ended: whatever it left may not hold its output open.
		syscall.Kill(-p.Pid, syscall.SIGKILL)
		drained := time.AfterFunc(afterLife, func() {
			for _, f := range []*os.File{out.r, errs.r} {
				f.SetReadDeadline(time.Now())
			}
		})
		pumps.Wait()
		drained.Stop()
		out.r.Close()
		errs.r.Close()
		e.finish(state, err, sizes)
	}()
	return nil
}

// devNull is what steps read from.
var devNull = sync.OnceValues(func() (*os.File, error) { return os.Open(os.DevNull) })

func graceOf(ms int64) time.Duration {
	if ms <= 0 {
		return agentapi.DefaultGrace
	}
	return time.Duration(ms) * time.Millisecond
}

// hide returns text without secrets.
func hide(set *mask.Set, text string) string {
	m := mask.NewMasker(set)
	return string(m.Flush(m.Mask(nil, []byte(text))))
}

// called is how a message names a program: in short, and in quotes where the name could
// be taken for something else.
func called(name string) string {
	short := name
	if len(short) > nameSize {
		short = strings.ToValidUTF8(short[:nameSize], "") + "…"
	}
	plain := func(r rune) bool {
		return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._+-*…", r)
	}
	if name == "" || strings.ContainsFunc(short, func(r rune) bool { return !plain(r) }) {
		return strconv.QuoteToGraphic(short)
	}
	return short
}

// fail ends an execution that never began.
func (e *run) fail(why string) {
	e.mu.Lock()
	e.x.State, e.x.Code, e.x.ExitCode, e.x.Finished = agentapi.Failed, agentapi.CodeStart, -1, time.Now().UTC()
	e.x.Message = "the program cannot be started: " + why
	e.mu.Unlock()
	e.spool.mark(e.x.Message)
	e.spool.finish()
	close(e.done)
}

// finish takes note of how the process ended.
func (e *run) finish(state *os.ProcessState, err error, sizes [2]agentapi.LogSize) {
	e.spool.finish()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.kill != nil {
		e.kill.Stop()
	}
	e.pid = 0
	e.x.Finished, e.x.Stdout, e.x.Stderr, e.x.LogBytes = time.Now().UTC(), sizes[0], sizes[1], e.spool.size()
	switch {
	case err != nil:
		e.x.State, e.x.Code, e.x.ExitCode, e.x.Message = agentapi.Failed, agentapi.CodeExit, -1, err.Error()
	default:
		ws := state.Sys().(syscall.WaitStatus)
		e.x.ExitCode = ws.ExitStatus()
		if ws.Signaled() {
			e.x.ExitCode = 128 + int(ws.Signal())
		}
		switch {
		case e.why != "":
			e.x.State, e.x.Code, e.x.Message = agentapi.Failed, e.why, e.words
		case e.x.ExitCode == 0:
			e.x.State = agentapi.Completed
		case ws.Signaled():
			e.x.State, e.x.Code, e.x.Message = agentapi.Failed, agentapi.CodeExit, "it was ended by signal "+strconv.Itoa(int(ws.Signal()))+" ("+ws.Signal().String()+")"
		default:
			e.x.State, e.x.Code, e.x.Message = agentapi.Failed, agentapi.CodeExit, "it ended with exit code "+strconv.Itoa(e.x.ExitCode)
		}
	}
	close(e.done)
}

// stop ends the process: by TERM, and by KILL after grace. The first reason stays.
func (e *run) stop(code, words string, grace time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pid == 0 {
		return
	}
	if e.why == "" {
		e.why, e.words = code, words
	}
	pid := e.pid
	if grace <= 0 {
		syscall.Kill(-pid, syscall.SIGKILL)
		return
	}
	syscall.Kill(-pid, syscall.SIGTERM)
	syscall.Kill(-pid, syscall.SIGCONT) // a stopped one hears nothing
	if e.kill == nil {
		e.kill = time.AfterFunc(grace, func() { syscall.Kill(-pid, syscall.SIGKILL) })
	}
}

// view returns how the execution stands.
func (e *run) view() agentapi.Exec {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.x
}

// environment is all that a step sees of the world.
func environment(j *job, r agentapi.ExecRequest) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + j.workspace(), "TMPDIR=" + j.temp(), "CI=true"}
	for _, v := range tells {
		env = append(env, v.name+"="+v.value(j, r))
	}
	// Of two settings of one name the later one counts.
	for k, v := range r.Env {
		env = append(env, k+"="+v)
	}
	for k, v := range r.Secrets {
		env = append(env, k+"="+v)
	}
	return env
}

// tells are the variables that tell a step of which job it is.
var tells = []struct {
	name  string
	value func(*job, agentapi.ExecRequest) string
}{
	{"FRAGUA_JOB_ID", func(j *job, _ agentapi.ExecRequest) string { return string(j.order.Job) }},
	{"FRAGUA_ATTEMPT", func(j *job, _ agentapi.ExecRequest) string { return strconv.Itoa(j.order.Attempt) }},
	{"FRAGUA_WORKER_ID", func(j *job, _ agentapi.ExecRequest) string { return string(j.order.Worker) }},
	{"FRAGUA_TENANT", func(j *job, _ agentapi.ExecRequest) string { return string(j.order.Tenant) }},
	{"FRAGUA_STEP_ID", func(_ *job, r agentapi.ExecRequest) string { return string(r.Step) }},
	{"FRAGUA_STEP_NAME", func(_ *job, r agentapi.ExecRequest) string { return r.Name }},
	{"FRAGUA_EXEC_ID", func(_ *job, r agentapi.ExecRequest) string { return string(r.Exec) }},
	{"FRAGUA_WORKSPACE", func(j *job, _ agentapi.ExecRequest) string { return j.workspace() }},
}

// Tells says whether a variable is one that tells a step of which job it is.
func Tells(variable string) bool {
	for _, v := range tells {
		if v.name == variable {
			return true
		}
	}
	return false
}

var errNoProgram = errors.New("there is no such program in PATH")

// lookPath finds a program as execvp does, by the step's own PATH.
func lookPath(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, executable(name)
	}
	path := ""
	for _, v := range env {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			path = p
		}
	}
	for _, d := range filepath.SplitList(path) {
		if d == "" || !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		if file := filepath.Join(d, name); executable(file) == nil {
			return file, nil
		}
	}
	return "", errNoProgram
}

func executable(file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return errors.Unwrap(err)
	case info.IsDir():
		return errors.New("it is a folder")
	case info.Mode()&0o111 == 0:
		return errors.New("it is not executable")
	}
	return nil
}

// pipe is one output of a step.
type pipe struct{ r, w *os.File }

func newPipe() (pipe, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return pipe{}, err
	}
	if raw, err := r.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) }) // best effort: fewer wake-ups
	}
	return pipe{r, w}, nil
}

func (p pipe) close() {
	p.r.Close()
	p.w.Close()
}
