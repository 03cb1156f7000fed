package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"fragua.dev/fragua/contract/identity"
)

const (
	certTTL   = 30 * 24 * time.Hour
	enough    = time.Hour // what a certificate must have left to be begun with
	lookEvery = 50 * time.Millisecond
)

// Issue writes a new certificate for each room, where its process looks for it. The
// process of the security room calls it at start, and daily.
func (d Dir) Issue(ctx context.Context, a identity.Authority, rooms ...string) error {
	for _, r := range rooms {
		c, err := a.Issue(ctx, identity.Room(r), certTTL)
		var text []byte
		if err == nil {
			text, err = c.PEM()
		}
		if err == nil {
			err = write(d.certificate(r), text)
		}
		if err != nil {
			return fmt.Errorf("certificate of %s: %w", r, err)
		}
	}
	return nil
}

// An Identity is a room's own certificate, and what those of others are verified
// against. It is read again when its file has changed.
type Identity struct {
	Room  string
	Roots *x509.CertPool
	PEM   []byte // the roots, as text
	file  string

	mu   sync.Mutex
	mod  time.Time
	cert *tls.Certificate
}

// Identity waits, until ctx ends, for the security room to have made a room's
// certificate.
func (d Dir) Identity(ctx context.Context, room string) (*Identity, error) {
	id := &Identity{Room: room, file: d.certificate(room)}
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		err := id.load(d)
		if err == nil {
			return id, nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errOld) {
				err = fmt.Errorf("the security service has not made it: does the process with it run? (%w)", err)
			}
			return nil, fmt.Errorf("certificate of %s: %w", room, err)
		}
	}
}

var errOld = errors.New("it has expired, or is of another house")

func (i *Identity) load(d Dir) error {
	pem, err := read(filepath.Join(string(d), "security", "ca.crt"))
	if err != nil {
		return err
	}
	i.PEM, i.Roots = pem, x509.NewCertPool()
	if !i.Roots.AppendCertsFromPEM(pem) {
		return errors.New("security/ca.crt holds no certificate")
	}
	cert, err := i.certificate()
	if err != nil {
		return err
	}
	_, err = cert.Leaf.Verify(x509.VerifyOptions{Roots: i.Roots, CurrentTime: time.Now().Add(enough), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return fmt.Errorf("%w: %w", errOld, err)
	}
	return nil
}

// certificate returns what the file holds now.
func (i *Identity) certificate() (*tls.Certificate, error) {
	info, err := os.Stat(i.file)
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cert != nil && info.ModTime().Equal(i.mod) {
		return i.cert, nil
	}
	text, err := read(i.file)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", i.file, err)
	}
	i.cert, i.mod = &cert, info.ModTime()
	return i.cert, nil
}

// read returns what a file holds that must be small.
func read(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s: want a file of at most %d bytes", file, maxFile)
	}
	return os.ReadFile(file)
}

// client returns TLS settings to speak to a room with this identity.
func (i *Identity) client(room string) *tls.Config {
	c := identity.Client(tls.Certificate{}, i.Roots, identity.Room(room))
	c.Certificates, c.ServerName = nil, room
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.certificate() }
	return c
}

// server returns TLS settings for a process with the rooms of these identities.
func server(ids []*Identity) *tls.Config {
	c := identity.Rooms(tls.Certificate{}, ids[0].Roots)
	c.Certificates = nil
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		for _, id := range ids {
			if id.Room == hello.ServerName {
				return id.certificate()
			}
		}
		return nil, errors.New("peer: that room is not here")
	}
	return c
}
