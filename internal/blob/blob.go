// Package blob keeps large contents under their SHA-256, for each tenant by
// itself, as files in a folder.
package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"fragua.dev/fragua/contract/ident"
)

// Errors, for errors.Is.
var (
	ErrBrokeOff = errors.New("the content broke off") // where it was read from, not where it was written
	ErrTooLarge = errors.New("the content is too large")
	ErrFull     = errors.New("the disk is full")
	ErrNotFound = errors.New("no such content")
)

const abandoned = 24 * time.Hour // after which an upload that nobody finished is removed

// Store is a folder of contents.
type Store struct {
	dir  string
	root *os.Root
}

// Open opens a folder, which it makes, and removes uploads that nobody finished.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, "incoming"), 0o700); err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	s := &Store{dir, root}
	old, err := fs.ReadDir(root.FS(), "incoming")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("blob: %w", err), root.Close())
	}
	for _, f := range old {
		if info, err := f.Info(); err == nil && time.Since(info.ModTime()) > abandoned {
			root.Remove("incoming/" + f.Name()) // tried again at the next start
		}
	}
	return s, nil
}

// Close closes the folder.
func (s *Store) Close() error { return s.root.Close() }

// Incoming is a content that has been received and is not kept yet.
type Incoming struct {
	Sum  string // SHA-256, in hexadecimal
	Size int64
	s    *Store
	name string
}

// Receive reads a content of at most limit bytes to the disk; it is written to
// also, too, such as a second hash. The caller keeps or drops it.
func (s *Store) Receive(ctx context.Context, r io.Reader, limit int64, also hash.Hash) (*Incoming, error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, "incoming"), "*")
	if err != nil {
		return nil, explain(err)
	}
	in := &Incoming{s: s, name: "incoming/" + filepath.Base(f.Name())}
	sum := sha256.New()
	out := io.MultiWriter(f, sum)
	if also != nil {
		out = io.MultiWriter(f, sum, also)
	}
	in.Size, err = io.Copy(out, io.LimitReader(ended{ctx, r}, limit+1))
	if err == nil && in.Size > limit {
		err = ErrTooLarge
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		in.Drop()
		return nil, explain(err)
	}
	in.Sum = hex.EncodeToString(sum.Sum(nil))
	return in, nil
}

// ended is a reader that fails when its context has ended, with ErrBrokeOff as when
// its source does.
type ended struct {
	ctx context.Context
	r   io.Reader
}

func (e ended) Read(p []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrBrokeOff, err)
	}
	n, err := e.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", ErrBrokeOff, err)
	}
	return n, err
}

func explain(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return fmt.Errorf("blob: %w", err)
}

// Drop removes what was received.
func (in *Incoming) Drop() { in.s.root.Remove(in.name) } // what stays is removed at a later start

// Keep makes what was received durable under its sum.
func (in *Incoming) Keep(t ident.Tenant) error {
	dir, name := place(t, in.Sum)
	if err := in.s.root.MkdirAll(dir, 0o700); err != nil {
		return explain(err)
	}
	if err := in.s.root.Rename(in.name, name); err != nil {
		return explain(err)
	}
	d, err := in.s.root.Open(dir)
	if err != nil {
		return explain(err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return explain(err)
	}
	return nil
}

func place(t ident.Tenant, sum string) (dir, name string) {
	dir = string(t) + "/" + sum[:2]
	return dir, dir + "/" + sum
}

// Get opens a content; the caller closes it.
func (s *Store) Get(t ident.Tenant, sum string) (*os.File, error) {
	if !ident.Valid(string(t)) || len(sum) != 64 || strings.Trim(sum, "0123456789abcdef") != "" {
		return nil, ErrNotFound
	}
	_, name := place(t, sum)
	f, err := s.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	return f, err
}

// Delete removes a content; one that is not there is no error.
func (s *Store) Delete(t ident.Tenant, sum string) error {
	_, name := place(t, sum)
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return explain(err)
	}
	return nil
}

// Each calls yield with each content that is kept, until it fails.
func (s *Store) Each(yield func(t ident.Tenant, sum string) error) error {
	return fs.WalkDir(s.root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // it was deleted meanwhile
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		parts := strings.Split(path, "/")
		if t, sum := parts[0], parts[len(parts)-1]; len(parts) == 3 && len(sum) == 64 && parts[1] == sum[:2] {
			return yield(ident.Tenant(t), sum)
		}
		return nil // of an upload
	})
}
