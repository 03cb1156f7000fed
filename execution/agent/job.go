package agent

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/identity"
	"fragua.dev/fragua/internal/scratch"
)

// job is what this process is the worker of.
type job struct {
	order   agentapi.Order
	log     *slog.Logger
	tls     *tls.Config
	boss    int // the process that gives orders
	lease   time.Duration
	timer   *time.Timer
	expired chan struct{}  // closed when the lease has run out
	over    chan struct{}  // closed when the job is being ended
	made    [2]fs.FileInfo // workspace and temp, as they were

	mu      sync.Mutex
	closing bool
	filled  bool // the workspace has been laid out
	steps   map[ident.Step]*run
	execs   map[ident.Exec]*run
	secrets map[string]bool // values that the job was told until now
	expires time.Time
}

func newJob(o agentapi.Order, roots *x509.CertPool, log *slog.Logger) (*job, error) {
	cert := identity.Certificate{Cert: o.Cert, Key: o.Key}
	if len(o.Key) != ed25519.PrivateKeySize || len(o.Cert) == 0 {
		return nil, errors.New("no certificate")
	}
	j := &job{
		order: o, log: log, boss: os.Getppid(), tls: identity.Server(cert.TLS(), roots, o.Client), lease: time.Duration(o.LeaseMS) * time.Millisecond,
		expired: make(chan struct{}), over: make(chan struct{}), steps: map[ident.Step]*run{}, execs: map[ident.Exec]*run{},
		secrets: map[string]bool{},
	}
	for i, d := range []string{j.workspace(), j.temp()} { // which may be there, as close left them
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
		info, err := os.Lstat(d)
		if err != nil {
			return nil, err
		}
		j.made[i] = info
	}
	j.expires = time.Now().Add(j.lease)
	j.timer = time.AfterFunc(j.lease, j.expire)
	return j, nil
}

func (j *job) workspace() string { return filepath.Join(j.order.Dir, "workspace") }
func (j *job) temp() string      { return filepath.Join(j.order.Dir, "tmp") }

// hide returns what must not be seen in the log of an execution: all that the job was told
// until now, as an earlier step may have left it in the workspace, in a file of tools.
func (j *job) hide(r agentapi.ExecRequest) []string {
	for _, s := range r.Secrets {
		j.secrets[s] = true
	}
	for _, s := range r.Hidden {
		j.secrets[s] = true
	}
	return slices.Collect(maps.Keys(j.secrets))
}

// renew puts the end of the lease off.
func (j *job) renew() time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.expires = time.Now().Add(j.lease)
	return j.expires
}

// alone says that whoever gives orders has ended. Until a next one comes nobody calls,
// and nobody can take this job for lost and begin it anew: it may go on for longer.
// Where none will come it ends soon.
func (j *job) alone() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.order.AloneMS > 0 {
		j.lease = time.Duration(j.order.AloneMS) * time.Millisecond
	}
	j.expires = time.Now().Add(j.lease)
	if j.timer.Stop() {
		j.timer.Reset(j.lease)
	}
}

// expire ends the lease, unless it was put off meanwhile: renewing costs no timer
// that way. Whoever gives orders and is stopped, as by Ctrl-Z, can neither call nor be
// replaced, and is waited for.
func (j *job) expire() {
	j.mu.Lock()
	defer j.mu.Unlock()
	left := time.Until(j.expires)
	switch {
	case left > 0:
		j.timer.Reset(left)
	case stopped(j.boss):
		j.expires = time.Now().Add(j.lease)
		j.timer.Reset(j.lease / 3) // so that one who goes on has time to call
	default:
		close(j.expired)
	}
}

// close ends everything of the job, and says whether nothing is left.
func (j *job) close(grace time.Duration) bool {
	j.timer.Stop()
	j.mu.Lock()
	j.closing = true
	close(j.over)
	var running []*run
	for _, r := range j.execs {
		running = append(running, r)
	}
	j.mu.Unlock()
	for _, r := range running {
		r.stop(agentapi.CodeCancel, "the worker was ended", grace)
	}
	for _, r := range running {
		<-r.done
	}
	clean := sweep()
	for _, r := range running {
		r.spool.close()
	}
	if untouched(j.workspace(), j.made[0]) && untouched(j.temp(), j.made[1]) && len(running) == j.unspilled(running) {
		return clean // the folders serve the next job: making them anew costs more than a small step
	}
	if err := scratch.Remove(j.order.Dir); err != nil {
		j.log.Error("the worker's folder cannot be removed", "error", err)
		clean = false
	}
	return clean
}

// unspilled counts executions whose log is in no file.
func (j *job) unspilled(all []*run) int {
	n := 0
	for _, r := range all {
		if !r.spool.spilled() {
			n++
		}
	}
	return n
}

// untouched says whether a folder is the one that this package made, as it made it, and
// empty. Another may be mounted upon it.
func untouched(dir string, made fs.FileInfo) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !os.SameFile(info, made) || info.Mode() != os.ModeDir|0o700 || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
		return false
	}
	_, err = f.Readdirnames(1)
	return errors.Is(err, io.EOF)
}
