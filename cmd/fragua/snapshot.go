package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

const (
	maxFiles    = 200_000
	maxSnapshot = 4 << 30 // bytes of all files
)

// snapshot writes the files of a folder into a compressed archive, and returns it
// with a name made of what is in it. The caller closes and removes the file.
func snapshot(dir string) (file *os.File, version string, err error) {
	names, err := files(dir)
	if err != nil {
		return nil, "", err
	}
	file, err = os.CreateTemp("", "fragua-source-*")
	if err != nil {
		return nil, "", err
	}
	defer func() {
		if err != nil {
			file.Close()
			os.Remove(file.Name())
		}
	}()
	sum := sha256.New()
	z, err := zstd.NewWriter(file, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil, "", err
	}
	out := tar.NewWriter(io.MultiWriter(z, sum))
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, "", err
	}
	defer root.Close()
	var total int64
	for _, name := range names {
		n, err := add(out, root, name)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", name, err)
		}
		if total += n; total > maxSnapshot {
			return nil, "", fmt.Errorf("the folder holds more than %d bytes: name less, with .gitignore", int64(maxSnapshot))
		}
	}
	if err := errors.Join(out.Close(), z.Close()); err != nil {
		return nil, "", err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, "", err
	}
	return file, hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// add writes one file; what is gone meanwhile, or is no file, is left out.
func add(out *tar.Writer, root *os.Root, name string) (int64, error) {
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	h := &tar.Header{Name: filepath.ToSlash(name), Mode: int64(info.Mode().Perm()), ModTime: time.Unix(0, 0)}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = root.Readlink(name); err != nil {
			return 0, err
		}
		return 0, out.WriteHeader(h)
	case !info.Mode().IsRegular():
		return 0, nil
	}
	f, err := root.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := out.WriteHeader(h); err != nil {
		return 0, err
	}
	return io.Copy(out, io.LimitReader(f, info.Size()))
}

// files returns what belongs to a folder: what git does not ignore, or everything.
func files(dir string) ([]string, error) {
	cmd := exec.Command("git", "-C", dir, "ls-files", "-z", "-co", "--exclude-standard")
	var out bytes.Buffer
	cmd.Stdout = &out
	var names []string
	if err := cmd.Run(); err == nil {
		for name := range strings.SplitSeq(out.String(), "\x00") {
			if name != "" {
				names = append(names, filepath.FromSlash(name))
			}
		}
	} else {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() {
				if d.Name() == ".git" {
					return fs.SkipDir
				}
				return nil
			}
			rel, err := filepath.Rel(dir, path)
			names = append(names, rel)
			if len(names) > maxFiles {
				return fmt.Errorf("more than %d files", maxFiles)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxFiles {
		return nil, fmt.Errorf("more than %d files", maxFiles)
	}
	return names, nil
}
