package main

import (
	"archive/tar"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"fragua.dev/fragua/internal/archive"
)

const (
	maxFiles    = 200_000
	maxSnapshot = 4 << 30 // bytes of all files
)

// snapshot writes the files of names, of at most so many bytes, into a compressed
// archive, and returns it with a name made of what is in it. The caller closes and
// removes the file.
func snapshot(dir string, names []string, most int64) (file *os.File, version string, err error) {
	if err := measure(dir, names, most); err != nil {
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
	for _, name := range names {
		if err := archive.Add(out, root, name); err != nil && !errors.Is(err, fs.ErrNotExist) { // what is gone meanwhile is left out
			return nil, "", fmt.Errorf("%s: %w", name, err)
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

// measure refuses files that come to more than most bytes, before any is packed, and
// says where most of them lie.
func measure(dir string, names []string, most int64) error {
	var total int64
	parts := map[string]int64{}
	for _, name := range names {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || !info.Mode().IsRegular() {
			continue // gone meanwhile, or no file: left out
		}
		top, _, _ := strings.Cut(filepath.ToSlash(name), "/")
		parts[top] += info.Size()
		total += info.Size()
	}
	if total <= most {
		return nil
	}
	largest := slices.MaxFunc(slices.Collect(maps.Keys(parts)), func(a, b string) int { return cmp.Compare(parts[a], parts[b]) })
	return fmt.Errorf("they come to %d MiB, and %d MiB is the most; %d MiB lie in %s: in a git repository .gitignore keeps files out",
		total>>20, most>>20, parts[largest]>>20, printable(largest))
}
