package agent

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/internal/archive"
)

var errNoArchive = errors.New("it is no tar archive, plain or compressed with gzip or zstd: give an artifact that is one, such as a folder that a job kept")

// unpack lays a tar archive, compressed with gzip or zstd or not at all, into dir, and
// nothing anywhere else.
func unpack(dir string, r io.Reader) error {
	plain, end, err := inflate(bufio.NewReader(r))
	if err != nil {
		return err
	}
	defer end()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	in := tar.NewReader(io.LimitReader(plain, agentapi.MaxWorkspace))
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := lay(root, h, in); err != nil {
			return fmt.Errorf("%.256q: %w", h.Name, err)
		}
	}
}

// lay makes what a header describes.
func lay(root *os.Root, h *tar.Header, content io.Reader) error {
	name := path.Clean(h.Name)
	if !filepath.IsLocal(name) {
		return errors.New("a name leads out of the workspace")
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeXGlobalHeader: // is about all others, and git archive writes one
		return nil
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeSymlink:
		return anew(root, name, func() error { return root.Symlink(h.Linkname, name) })
	case tar.TypeLink:
		return link(root, path.Clean(h.Linkname), name)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return write(root, name, fs.FileMode(h.Mode).Perm(), content)
	case tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		return archive.ErrSpecial
	}
	return fmt.Errorf("entries of type %q are not known", h.Typeflag)
}

// link makes another name for a file that was laid out before; root lets neither lead
// out of the workspace.
func link(root *os.Root, old, name string) error {
	if old == name {
		return nil
	}
	if err := anew(root, name, func() error { return root.Link(old, name) }); err != nil {
		return fmt.Errorf("it cannot be a link to %.256q: %w", old, err)
	}
	return nil
}

// anew makes something in the place of what is there already: a file that is written
// over would change under its other names, too.
func anew(root *os.Root, name string, create func() error) error {
	err := create()
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := root.Remove(name); err != nil {
		return err
	}
	return create()
}

// inflate tells by their first bytes how an archive is compressed: snapshots are with
// zstd, folders that jobs kept not at all, and what people upload as they like it.
func inflate(r *bufio.Reader) (plain io.Reader, end func(), err error) {
	end = func() {}
	head, err := r.Peek(4)
	switch {
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxMemory(256<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, err
		}
		r, end = bufio.NewReader(z), z.Close
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, err
		}
		r = bufio.NewReader(z)
	case err != nil && !errors.Is(err, io.EOF): // the sender's
		return nil, nil, err
	}
	block, err := r.Peek(512)
	if !errors.Is(err, io.EOF) && err != nil {
		end()
		return nil, nil, err
	}
	// An archive begins with the header of a file; one of nothing with zeros.
	if len(block) < 512 || !bytes.HasPrefix(block[257:], []byte("ustar")) && !bytes.Equal(block, make([]byte, 512)) {
		end()
		return nil, nil, errNoArchive
	}
	return r, end, nil
}

func write(root *os.Root, name string, mode fs.FileMode, r io.Reader) error {
	var f *os.File
	err := anew(root, name, func() (err error) {
		f, err = root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode|0o600)
		return err
	})
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
