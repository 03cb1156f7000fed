package main

import (
	"context"
	"errors"
	"fmt"
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

const (
	// lockTime is how long who means to stay waits for who holds the lock for a moment:
	// a client that looks, in look, whether there is a server; or a child of a server
	// that was killed, which has its files until it has become another program.
	lockTime = 2 * time.Second
	// patience is how long a server waits for a run or a command to end, which may have
	// been started along with it, and been faster.
	patience = time.Minute
	lockLook = 40 * time.Millisecond
)

// lockSoon is lockDir for those who mean to stay. It calls tell when it has to wait
// for a command to end.
func lockSoon(ctx context.Context, dir, as string, tell func(command string), rooms ...string) (lock, error) {
	began, told := time.Now(), false
	for {
		l, err := lockDir(dir, as, rooms...)
		if !errors.Is(err, errLocked) {
			return l, err
		}
		waited, most := time.Since(began), lockTime
		if by := lockedBy(dir); as == asServer && (by == asRun || by == asCommand) {
			if most = patience; !told && waited > noteTime {
				told = true
				tell(by)
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

// lockedBy returns what the one who holds the lock says, or the last who did.
func lockedBy(dir string) string {
	b, _ := os.ReadFile(filepath.Join(dir, "lock")) // one that cannot be read says nothing
	return strings.TrimSpace(string(b))
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
		return nil, locked(err, dir)
	}
	for _, r := range rooms {
		if err := take(filepath.Join(dir, "rooms", r+".lock"), syscall.LOCK_EX); err != nil {
			return nil, locked(err, dir+", with "+r)
		}
	}
	if as != "" {
		sign(l[0], as)
	}
	return l, nil
}

// sign writes what the holder of a lock does. Where the disk is full, nobody reads it.
func sign(f *os.File, as string) {
	text := []byte(as + "\n")
	if _, err := f.WriteAt(text, 0); err == nil {
		_ = f.Truncate(int64(len(text)))
	}
}

func locked(err error, where string) error {
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("%w: %s", errLocked, where)
	}
	return err
}
