package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// errLocked says that another process works in the data folder.
var errLocked = errors.New("another fragua works in this data folder")

// Who holds a folder's lock says in it what it does there.
const (
	asServer  = "serve"
	asRun     = "run"
	asCommand = "command" // of a client, with a house of its own for as long as it takes
)

// A lock keeps other processes out for as long as this one lives, or until Close.
type lock []*os.File

// Close lets others in.
func (l lock) Close() error {
	var errs []error
	for _, f := range l {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

var errGone = errors.New("the data folder is gone, or another stands in its place: what is accepted from now on would be lost")

// watch yields errGone when the lock's file is not in dir any more.
func (l lock) watch(ctx context.Context, dir string) <-chan error {
	gone := make(chan error, 1)
	go func() {
		t := time.NewTicker(goneLook)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			mine, err := l[0].Stat()
			there, err2 := os.Stat(filepath.Join(dir, "lock"))
			if err == nil && (errors.Is(err2, fs.ErrNotExist) || err2 == nil && !os.SameFile(mine, there)) {
				gone <- fmt.Errorf("%w: %s", errGone, dir)
				return
			}
		}
	}()
	return gone
}

const (
	// lockTime is how long who means to stay waits for who holds the lock for a moment:
	// a client that looks, in look, whether there is a server; or a child of a server
	// that was killed, which has its files until it has become another program.
	lockTime = 2 * time.Second
	// patience is how long a server waits for a run or a command to end, which may have
	// been started along with it, and been faster.
	patience = time.Minute
	lockLook = 40 * time.Millisecond
	goneLook = time.Second // between looks at whether the folder is still there
)

// lockSoon is lockDir for those who mean to stay. It calls tell when it has to wait
// for somebody to end.
func lockSoon(ctx context.Context, dir, as string, tell func(by string), rooms ...string) (lock, error) {
	began, told := time.Now(), false
	var wish *os.File
	defer func() { wish.Close() }() // not before the lock is there: meanwhile nobody else would take it
	for {
		l, err := lockDir(dir, as, rooms...)
		if !errors.Is(err, errLocked) {
			return l, err
		}
		waited, most := time.Since(began), lockTime
		by := lockedBy(dir)
		if by == asCommand && as != asCommand && wish == nil {
			wish = want(dir)
		}
		if as == asServer && by == asRun || as != asCommand && by == asCommand {
			if most = patience; !told && waited > noteTime {
				told = true
				tell(holds(dir))
			}
		}
		if waited > most {
			return nil, err
		}
		select {
		case <-time.After(lockLook):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// lockedBy returns what the one who holds the lock does there, or the last who did.
func lockedBy(dir string) string {
	as, _, _ := strings.Cut(holds(dir), " ")
	return as
}

// holds returns what the holder of the lock says: what it does there, and its process.
func holds(dir string) string {
	b, _ := os.ReadFile(filepath.Join(dir, "lock")) // one that cannot be read says nothing
	return strings.TrimSpace(string(b))
}

// want lets commands that follow something in a folder know that somebody waits for it,
// until the file is closed. It may fail for a moment, while one of them looks: then it is nil.
func want(dir string) *os.File {
	f, err := os.OpenFile(filepath.Join(dir, "wanted"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil
	}
	return f
}

// wished says whether somebody waits for a folder.
func wished(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "wanted"))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

// lockDir locks the data folder dir: all of it, or some rooms. Processes with some
// rooms share the folder's lock, which one with all of them has for itself, and have
// a lock for each room beside it. Who only looks whether it is free says nothing in as.
func lockDir(dir, as string, rooms ...string) (_ lock, err error) {
	var l lock
	defer func() {
		if err != nil {
			l.Close() // that it is taken is what there is to tell
		}
	}()
	take := func(file string, how int) error {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		l = append(l, f)
		return syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
	}
	how := syscall.LOCK_EX
	if len(rooms) > 0 {
		how = syscall.LOCK_SH
	}
	if err := take(filepath.Join(dir, "lock"), how); err != nil {
		return nil, locked(err, dir, holds(dir))
	}
	for _, r := range rooms {
		if err := take(filepath.Join(dir, "rooms", r+".lock"), syscall.LOCK_EX); err != nil {
			return nil, locked(err, dir, "with "+r)
		}
	}
	if as != "" {
		sign(l[0], as)
	}
	return l, nil
}

// sign writes what the holder of a lock does, and which process it is. Where the disk is
// full, nobody reads it.
func sign(f *os.File, as string) {
	text := fmt.Appendf(nil, "%s (process %d)\n", as, os.Getpid())
	if _, err := f.WriteAt(text, 0); err == nil {
		_ = f.Truncate(int64(len(text)))
	}
}

func locked(err error, dir, by string) error {
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("%w, %s: %s", errLocked, dir, by)
	}
	return err
}
