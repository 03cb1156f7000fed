package agent

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"syscall"
)

var errSpecial = errors.New("it is neither a file nor a folder")

// openPlain opens a file or a folder, and nothing else: a pipe, a socket or a device
// may have no end, and reading it may do something.
func openPlain(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	info, err := root.Stat(name)
	if err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		err = errSpecial
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
		err = errSpecial
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// serveFile sends a file of the workspace, or a folder as a tar archive.
func (j *job) serveFile(w http.ResponseWriter, r *http.Request) {
	name := path.Clean(r.URL.Query().Get("path"))
	if !filepath.IsLocal(name) {
		problem(w, http.StatusUnprocessableEntity, "want a path within the workspace")
		return
	}
	root, err := os.OpenRoot(j.workspace())
	if err != nil {
		problem(w, http.StatusNotFound, "no workspace")
		return
	}
	defer root.Close()
	f, info, err := openPlain(root, name)
	switch {
	case errors.Is(err, errSpecial):
		problem(w, http.StatusUnprocessableEntity, err.Error()+", and cannot be kept")
		return
	case err != nil:
		problem(w, http.StatusNotFound, "no such file in the workspace")
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	if !info.IsDir() {
		w.Header().Set("X-Fragua-Kind", "file")
		w.Header().Set("Content-Length", strconv.FormatInt(info.Size(), 10))
		io.CopyN(w, f, info.Size()) // what is missing shows by the length
		return
	}
	w.Header().Set("X-Fragua-Kind", "tar")
	sub, err := root.OpenRoot(name)
	if err != nil {
		problem(w, http.StatusNotFound, "no such folder in the workspace")
		return
	}
	defer sub.Close()
	if err := archive(w, sub); err != nil {
		panic(http.ErrAbortHandler) // an archive that breaks off must not look whole
	}
}

// archive writes what root holds, in the order of names. It says who may read a
// file, and not whose it is or how old: the same content makes the same archive.
// What is neither a file, a folder nor a link is left out, for it has no content.
func archive(w io.Writer, root *os.Root) error {
	out := tar.NewWriter(w)
	err := fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: name, Mode: int64(info.Mode().Perm())}
		switch {
		case info.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, name+"/"
			return out.WriteHeader(h)
		case info.Mode()&fs.ModeSymlink != 0:
			h.Typeflag = tar.TypeSymlink
			if h.Linkname, err = root.Readlink(name); err != nil {
				return err
			}
			return out.WriteHeader(h)
		case !info.Mode().IsRegular():
			return nil
		}
		f, info, err := openPlain(root, name)
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
	})
	if err != nil {
		return err
	}
	return out.Close()
}
