package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// What a proof is about, so that a signature made for it is good for nothing else.
const (
	proofLabel   = "EXPORTER-fragua-identity"
	proofContext = "fragua identity 1\x00"
	proofBytes   = 32
)

// Prove shows the peer of a connection that this end also holds the key of the
// certificate own: a signature over what only this connection knows. It is the
// idea of RFC 9261, exported authenticators, and costs a third of a handshake.
func Prove(s *tls.ConnectionState, own tls.Certificate) (cert, signature []byte, err error) {
	key, ok := own.PrivateKey.(ed25519.PrivateKey)
	if !ok || len(own.Certificate) != 1 {
		return nil, nil, errors.New("identity: a proof wants a leaf with an Ed25519 key")
	}
	text, err := proofText(s, own.Certificate[0])
	if err != nil {
		return nil, nil, err
	}
	signature, err = key.Sign(rand.Reader, text, crypto.Hash(0))
	return own.Certificate[0], signature, err
}

// CheckProof says whether the peer of a connection has proved to be the SPIFFE id
// peer. An error wraps ErrPeer.
func CheckProof(s *tls.ConnectionState, roots *x509.CertPool, peer string, cert, signature []byte) error {
	leaf, err := x509.ParseCertificate(cert)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPeer, err)
	}
	if err := check(leaf, nil, roots, x509.ExtKeyUsageServerAuth, only(peer)); err != nil {
		return err
	}
	text, err := proofText(s, cert)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPeer, err)
	}
	if key, ok := leaf.PublicKey.(ed25519.PublicKey); !ok || !ed25519.Verify(key, text, signature) {
		return fmt.Errorf("%w: the proof does not hold", ErrPeer)
	}
	return nil
}

// proofText binds a certificate to a connection.
func proofText(s *tls.ConnectionState, cert []byte) ([]byte, error) {
	if s == nil || s.Version != tls.VersionTLS13 || !s.HandshakeComplete {
		return nil, errors.New("identity: a proof wants a connection of TLS 1.3")
	}
	secret, err := s.ExportKeyingMaterial(proofLabel, cert, proofBytes)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return append([]byte(proofContext), secret...), nil
}
