package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
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
	tellSpecial(os.Stderr, special(dir, names))
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

// special returns the pipes, sockets and devices that lie beside files, unless git
// ignores them: they have no content that could travel, and git lists none of them.
func special(dir string, names []string) (found []string) {
	folders := map[string]bool{".": true}
	for _, name := range names {
		folders[filepath.Dir(name)] = true
	}
	for _, folder := range slices.Sorted(maps.Keys(folders)) {
		entries, _ := os.ReadDir(filepath.Join(dir, folder)) // gone meanwhile: nothing to tell
		for _, e := range entries {
			if t := e.Type(); !t.IsRegular() && !t.IsDir() && t&fs.ModeSymlink == 0 {
				found = append(found, filepath.Join(folder, e.Name()))
			}
		}
	}
	if found == nil {
		return nil
	}
	cmd := exec.Command("git", "-C", dir, "check-ignore", "-z", "--stdin")
	cmd.Stdin = strings.NewReader(strings.Join(found, "\x00"))
	out, _ := cmd.Output() // without git, or outside a repository, nothing is ignored
	ignored := strings.Split(string(out), "\x00")
	return slices.DeleteFunc(found, func(name string) bool { return slices.Contains(ignored, name) })
}

// maxTold bounds the lines about what is left out.
const maxTold = 10

func tellSpecial(out io.Writer, names []string) {
	for i, name := range names {
		if i == maxTold {
			fmt.Fprintf(out, "left out: %d more pipes, sockets and devices\n", len(names)-i)
			return
		}
		fmt.Fprintf(out, "left out: %s, which is neither a file nor a folder\n", printable(name))
	}
}

// files returns what belongs to a folder: what git does not ignore, or everything;
// and apart from it the data folders of Fragua, which hold keys and stay at home.
func files(dir string) (names, left []string, err error) {
	homes := map[string]bool{".": false}
	atHome := func(folder string) bool {
		known, ok := homes[folder]
		if !ok {
			known = isHome(filepath.Join(dir, folder))
			if homes[folder] = known; known {
				left = append(left, folder)
			}
		}
		return known
	}
	if isHome(dir) {
		return nil, nil, errors.New("it is the data folder of a Fragua server")
	}
	cmd := exec.Command("git", "-C", dir, "ls-files", "-z", "-co", "--exclude-standard")
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err == nil {
	next:
		for name := range strings.SplitSeq(out.String(), "\x00") {
			if name == "" {
				continue
			}
			name = filepath.FromSlash(name)
			for folder := filepath.Dir(name); folder != "."; folder = filepath.Dir(folder) {
				if atHome(folder) {
					continue next
				}
			}
			names = append(names, name)
		}
	} else if names, err = walk(dir, atHome); err != nil {
		return nil, nil, err
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxFiles {
		return nil, nil, fmt.Errorf("there are more than %d", maxFiles)
	}
	return names, left, nil
}

// isHome says whether a folder is one that fragua serve keeps its data in.
func isHome(folder string) bool {
	for _, name := range []string{"owner.token", "lock"} {
		if _, err := os.Lstat(filepath.Join(folder, name)); err != nil {
			return false
		}
	}
	return true
}

// walk returns all files of a folder but git's own, and those of folders to skip.
func walk(dir string, skip func(folder string) bool) (names []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" || skip(rel) {
				return fs.SkipDir
			}
			return nil
		}
		if names = append(names, rel); len(names) > maxFiles {
			return fmt.Errorf("there are more than %d", maxFiles)
		}
		return nil
	})
	return names, err
}
