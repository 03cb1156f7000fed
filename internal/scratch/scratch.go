// Package scratch removes folders in which strangers were at work: what they mounted is
// not entered, and what they locked is opened.
package scratch

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const mountTable = "/proc/self/mountinfo"

// Remove removes dir and all that is in it. It takes mounts within away first, and
// removes nothing while one is left: what is behind it is not the folder's. Nobody may be
// at work there any more.
func Remove(dir string) error {
	if err := unmount(dir); err != nil {
		return err
	}
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	// Folders that nobody may write to, or enter, are their owner's to open.
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) // #nosec G302 -- a folder needs x; what cannot be opened is told by RemoveAll
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// unmount takes away what is mounted in dir, the last first.
func unmount(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return err
	}
	table, err := os.ReadFile(mountTable)
	if err != nil {
		return fmt.Errorf("whether something is mounted in %s cannot be seen: %w", dir, err)
	}
	for _, at := range slices.Backward(within(table, real)) {
		if err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("%s is mounted, and cannot be taken away: %w", at, err)
		}
	}
	return nil
}

// within returns the mount points of a table at dir or below, in its order (proc(5)).
func within(table []byte, dir string) (out []string) {
	for line := range bytes.Lines(table) {
		fields := bytes.Fields(line)
		if len(fields) < 5 {
			continue
		}
		if at := plain(string(fields[4])); at == dir || strings.HasPrefix(at, dir+"/") {
			out = append(out, at)
		}
	}
	return out
}

// plain undoes the octal escapes of a mount table.
func plain(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
