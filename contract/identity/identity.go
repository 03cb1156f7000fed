// Package identity is who a process of the house is to the others: a certificate
// with a SPIFFE id, from the authority that the security room keeps.
package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"fragua.dev/fragua/contract/ident"
)

// TrustDomain is the first part of every SPIFFE id of the house.
const TrustDomain = "fragua"

// Room returns the SPIFFE id of a room of the house.
func Room(name string) string { return "spiffe://" + TrustDomain + "/room/" + name }

// RoomOf returns the name of the room whose SPIFFE id it is; empty for any other.
func RoomOf(spiffeID string) string {
	name, is := strings.CutPrefix(spiffeID, Room(""))
	if !is || strings.Contains(name, "/") {
		return ""
	}
	return name
}

// Worker returns the SPIFFE id of a tenant's worker.
func Worker(t ident.Tenant, w ident.Worker) string {
	return "spiffe://" + TrustDomain + "/tenant/" + string(t) + "/worker/" + string(w)
}

// A Certificate is a leaf and its key.
type Certificate struct {
	Cert    []byte             `json:"cert"` // DER
	Key     ed25519.PrivateKey `json:"key"`
	Expires time.Time          `json:"expires"`
	// Shared is, of a worker, what the house shares with this certificate's holder;
	// of the execution room, the key from which all of these follow.
	Shared []byte `json:"shared,omitempty"`
}

// TLS returns the certificate as TLS settings hold it.
func (c Certificate) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{c.Cert}, PrivateKey: c.Key}
}

// PEM returns the certificate and its key as one text, for a file.
func (c Certificate) PEM() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(c.Key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Cert})
	return append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...), nil
}

// An Authority issues certificates for SPIFFE ids. They serve as a server's and
// as a client's, and hold no host name: peers compare the id.
type Authority interface {
	Issue(ctx context.Context, spiffeID string, ttl time.Duration) (Certificate, error)
	// Roots returns what certificates are verified against, and the same in PEM.
	Roots() (*x509.CertPool, []byte)
}

// Client returns TLS settings for a caller with certificate own, who will speak
// to peer and to nobody else.
func Client(own tls.Certificate, roots *x509.CertPool, peer string) *tls.Config {
	c := base(own, roots)
	c.InsecureSkipVerify = true // no host names here: verify compares the SPIFFE id instead
	c.VerifyConnection = verify(roots, x509.ExtKeyUsageServerAuth, only(peer))
	return c
}

// Server returns TLS settings for a server with certificate own, which lets in
// peer and nobody else.
func Server(own tls.Certificate, roots *x509.CertPool, peer string) *tls.Config {
	c := base(own, roots)
	c.ClientAuth = tls.RequireAnyClientCert // verify does the rest
	c.VerifyConnection = verify(roots, x509.ExtKeyUsageClientAuth, only(peer))
	return c
}

// Rooms returns TLS settings for a server with certificate own, which lets in the
// rooms of the house and nobody else.
func Rooms(own tls.Certificate, roots *x509.CertPool) *tls.Config {
	c := Server(own, roots, "")
	c.VerifyConnection = verify(roots, x509.ExtKeyUsageClientAuth, func(id string) error {
		if RoomOf(id) == "" {
			return fmt.Errorf("%w: want a room of the house", ErrPeer)
		}
		return nil
	})
	return c
}

func base(own tls.Certificate, roots *x509.CertPool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, RootCAs: roots, ClientCAs: roots,
		// Both ends are on machines of one house, and worker connections are
		// many and short: the hybrid post-quantum exchange would double their cost.
		CurvePreferences:       []tls.CurveID{tls.X25519},
		SessionTicketsDisabled: true,
	}
}
