// Package archive writes files of a folder into tar archives that say what the files
// hold and who may read them, and not whose they are or how old: the same content
// makes the same archive.
package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrSpecial is wrapped by what Open returns for a pipe, a socket or a device.
var ErrSpecial = errors.New("it is neither a file nor a folder")

// Open opens a file or a folder, and nothing else: a pipe, a socket or a device may
// have no end, and reading it may do something.
func Open(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	info, err := root.Stat(name)
	if err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		err = ErrSpecial
	}
	if err != nil {
		return nil, nil, err
	}
	// What was there a moment ago may be a pipe by now: opening it must not wait.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		err = ErrSpecial
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// Add writes a file or a link of root. What is neither, a folder too, has no content
// of its own and is left out; what is not there is an error that wraps fs.ErrNotExist.
func Add(out *tar.Writer, root *os.Root, name string) error {
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	h := &tar.Header{Name: filepath.ToSlash(name), Mode: int64(info.Mode().Perm())}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = root.Readlink(name); err != nil {
			return err
		}
		return out.WriteHeader(h)
	case !info.Mode().IsRegular():
		return nil
	}
	f, info, err := Open(root, name)
	if err != nil {
		return err
	}
	defer f.Close()
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	if n, err := io.CopyN(out, f, h.Size); err != nil {
		return fmt.Errorf("%d of %d bytes: %w", n, h.Size, err)
	}
	return nil
}
