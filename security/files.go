package security

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// maxKeyFile is more than any file of this room holds.
const maxKeyFile = 64 << 10

// readPrivate returns what a file that only its owner may read holds. Rights that
// are too wide are taken back, for what is in it may be in use already.
func readPrivate(file string) ([]byte, error) {
	info, err := os.Lstat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", file)
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", file, maxKeyFile)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(file, 0o600); err != nil {
			return nil, err
		}
	}
	return os.ReadFile(file)
}

// writePrivate puts data into file so that it is there whole or not at all, also
// after a power cut.
func writePrivate(file string, data []byte) error {
	dir := filepath.Dir(file)
	f, err := os.CreateTemp(dir, "."+filepath.Base(file)+"-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// keep returns what file holds, or what make returns, which it then holds.
func keep(file string, make func() ([]byte, error)) ([]byte, error) {
	data, err := readPrivate(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	if data, err = make(); err != nil {
		return nil, err
	}
	return data, writePrivate(file, data)
}
