package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// ErrPeer is wrapped by what a handshake with the wrong peer returns.
var ErrPeer = errors.New("the peer is not who it should be")

// only lets in one peer.
func only(peer string) func(id string) error {
	return func(id string) error {
		if id != peer {
			return fmt.Errorf("%w: want %s", ErrPeer, peer)
		}
		return nil
	}
}

// Peer returns the SPIFFE id of who is at the other end, once TLS settings of this
// package have let it through.
func Peer(s *tls.ConnectionState) string {
	if s == nil || len(s.PeerCertificates) == 0 || len(s.PeerCertificates[0].URIs) != 1 {
		return ""
	}
	return s.PeerCertificates[0].URIs[0].String()
}

func verify(roots *x509.CertPool, usage x509.ExtKeyUsage, let func(id string) error) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return fmt.Errorf("%w: no certificate", ErrPeer)
		}
		return check(s.PeerCertificates[0], s.PeerCertificates[1:], roots, usage, let)
	}
}

// check says whether leaf is a certificate by roots of an id that let lets in.
func check(leaf *x509.Certificate, between []*x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage, let func(id string) error) error {
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, c := range between {
		opts.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(opts); err != nil {
		return fmt.Errorf("%w: %w", ErrPeer, err)
	}
	return letLeaf(leaf, let)
}

func letLeaf(leaf *x509.Certificate, let func(id string) error) error {
	if len(leaf.URIs) != 1 {
		return fmt.Errorf("%w: want one SPIFFE id", ErrPeer)
	}
	return let(leaf.URIs[0].String())
}
