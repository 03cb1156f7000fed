package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// ErrPeer is wrapped by what a handshake with the wrong peer returns.
var ErrPeer = errors.New("the peer is not who it should be")

func verify(roots *x509.CertPool, peer string, usage x509.ExtKeyUsage) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return fmt.Errorf("%w: no certificate", ErrPeer)
		}
		return check(s.PeerCertificates[0], s.PeerCertificates[1:], roots, peer, usage)
	}
}

// check says whether leaf is the certificate of the SPIFFE id peer, by roots.
func check(leaf *x509.Certificate, between []*x509.Certificate, roots *x509.CertPool, peer string, usage x509.ExtKeyUsage) error {
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, c := range between {
		opts.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(opts); err != nil {
		return fmt.Errorf("%w: %w", ErrPeer, err)
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != peer {
		return fmt.Errorf("%w: want %s", ErrPeer, peer)
	}
	return nil
}
