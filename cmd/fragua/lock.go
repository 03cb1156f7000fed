package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// errLocked says that another process works in the data folder.
var errLocked = errors.New("another fragua works in this data folder")

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

// lockTime is how long a server waits for who holds the lock for a moment: a client
// that looks, in running, whether there is a server; or a child of a server that was
// killed, which has its files until it has become another program.
const lockTime = 2 * time.Second

// lockSoon is lockDir for those who mean to stay.
func lockSoon(ctx context.Context, dir string, rooms ...string) (lock, error) {
	ctx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	for {
		l, err := lockDir(dir, rooms...)
		if !errors.Is(err, errLocked) {
			return l, err
		}
		select {
		case <-time.After(lockTime / 50):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// lockDir locks the data folder dir: all of it, or some rooms. Processes with some
// rooms share the folder's lock, which one with all of them has for itself, and have
// a lock for each room beside it.
func lockDir(dir string, rooms ...string) (_ lock, err error) {
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
	whole := filepath.Join(dir, "lock")
	if len(rooms) == 0 {
		if err := take(whole, syscall.LOCK_EX); err != nil {
			return nil, locked(err, dir)
		}
		return l, nil
	}
	if err := take(whole, syscall.LOCK_SH); err != nil {
		return nil, locked(err, dir)
	}
	for _, r := range rooms {
		if err := take(filepath.Join(dir, "rooms", r+".lock"), syscall.LOCK_EX); err != nil {
			return nil, locked(err, dir+", with "+r)
		}
	}
	return l, nil
}

func locked(err error, where string) error {
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("%w: %s", errLocked, where)
	}
	return err
}
