package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// What a code is about, so that one made for it is good for nothing else.
const (
	sharedContext = "fragua shared 1\x00"
	proofContext  = "fragua identity 2\x00"
	proofLabel    = "EXPORTER-fragua-identity"
	proofBytes    = 32
)

// SharedWith returns what the house shares with the holder of a certificate, whom it
// gives it together with the certificate: a code over it by the house's key. Whoever
// has it has been given the certificate by the house.
func SharedWith(house, cert []byte) []byte { return code(house, sharedContext, cert) }

// Prove shows the peer of a connection that this end is also the holder of another
// certificate: a code by what the house shares with that one, over what only this
// connection knows. It is the idea of RFC 9261, exported authenticators, with a
// shared key as RFC 8446 resumes a session with: a signature costs as much as a
// quarter of a handshake.
func Prove(s *tls.ConnectionState, cert, shared []byte) ([]byte, error) {
	secret, err := connectionSecret(s, cert)
	if err != nil {
		return nil, err
	}
	return code(shared, proofContext, secret), nil
}

// CheckProof says whether the peer of a connection has proved to be the SPIFFE id
// peer. An error wraps ErrPeer.
func CheckProof(s *tls.ConnectionState, house []byte, peer string, cert, proof []byte, now time.Time) error {
	secret, err := connectionSecret(s, cert)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPeer, err)
	}
	if len(house) == 0 || !hmac.Equal(proof, code(SharedWith(house, cert), proofContext, secret)) {
		return fmt.Errorf("%w: the proof does not hold", ErrPeer)
	}
	leaf, err := x509.ParseCertificate(cert)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPeer, err)
	}
	// Only the authority can have made what is shared: its signature says no more.
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) || !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		return fmt.Errorf("%w: the certificate is not valid", ErrPeer)
	}
	return letLeaf(leaf, only(peer))
}

// connectionSecret is what both ends of a connection know about a certificate, and
// nobody else.
func connectionSecret(s *tls.ConnectionState, cert []byte) ([]byte, error) {
	if s == nil || s.Version != tls.VersionTLS13 || !s.HandshakeComplete {
		return nil, errors.New("identity: a proof wants a connection of TLS 1.3")
	}
	secret, err := s.ExportKeyingMaterial(proofLabel, cert, proofBytes)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return secret, nil
}

func code(key []byte, about string, text []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(about))
	h.Write(text)
	return h.Sum(nil)
}
