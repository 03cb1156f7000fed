package agent

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"fragua.dev/fragua/internal/archive"
)

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
	f, info, err := archive.Open(root, name)
	switch {
	case errors.Is(err, archive.ErrSpecial):
		problem(w, http.StatusUnprocessableEntity, err.Error()+", and cannot be kept")
		return
	case err != nil:
		problem(w, http.StatusNotFound, absence(root, name, err))
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
	if err := pack(w, sub); err != nil {
		panic(http.ErrAbortHandler) // an archive that breaks off must not look whole
	}
}

// absence says why a file of the workspace cannot be had.
func absence(root *os.Root, name string, err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return "the file may not be read"
	}
	if info, there := root.Lstat(name); there == nil && info.Mode().Type() == fs.ModeSymlink {
		return "a link that leads to nothing, or out of the workspace"
	}
	return "no such file in the workspace"
}

// pack writes what root holds, in the order of names.
func pack(w io.Writer, root *os.Root) error {
	out := tar.NewWriter(w)
	err := fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if !d.IsDir() {
			return archive.Add(out, root, name)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: int64(info.Mode().Perm())})
	})
	if err != nil {
		return err
	}
	return out.Close()
}
