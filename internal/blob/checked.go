package blob

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"

	"fragua.dev/fragua/contract/ident"
)

// ErrDamaged says that a content is not the one that was kept.
var ErrDamaged = errors.New("the content is damaged: it has another checksum than when it was kept")

// Checked is a content that is compared with its sum while it is read from its
// beginning to its end: the read that comes to the end yields nothing when it is
// damaged, so that nobody takes it for whole. A part of it has no sum.
type Checked struct {
	f        *os.File // not embedded: what else a file can do would pass by the sum
	want     string
	size, at int64
	sum      hash.Hash // of what was read from the beginning on; nil after a part was
}

// Check opens a content of so many bytes; the caller closes it.
func (s *Store) Check(t ident.Tenant, sum string, size int64) (*Checked, error) {
	f, err := s.Get(t, sum)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != size {
		err = ErrDamaged
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Checked{f: f, want: sum, size: size, sum: sha256.New()}, nil
}

func (c *Checked) Read(p []byte) (int, error) {
	n, err := c.f.Read(p)
	if c.sum == nil {
		return n, err
	}
	c.sum.Write(p[:n])
	c.at += int64(n)
	if ended := c.at >= c.size || errors.Is(err, io.EOF); ended && hex.EncodeToString(c.sum.Sum(nil)) != c.want {
		return 0, ErrDamaged
	}
	return n, err
}

// Seek goes to a place; only who reads from the beginning reads what has a sum.
func (c *Checked) Seek(offset int64, whence int) (int64, error) {
	at, err := c.f.Seek(offset, whence)
	if c.at, c.sum = at, nil; at == 0 && err == nil {
		c.sum = sha256.New()
	}
	return at, err
}

// Close closes the content.
func (c *Checked) Close() error { return c.f.Close() }
