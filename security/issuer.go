package security

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/sqldb"
)

// audience is whom the tokens of this issuer are for.
const audience = "fragua"

// tokenType is what the head of a token says that it is: RFC 9068.
const tokenType = "at+jwt"

// maxTokenBytes is more than any token of this issuer has.
const maxTokenBytes = 8 << 10

// claims are what a token says.
type claims struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	Audience  string   `json:"aud"`
	Expires   int64    `json:"exp"` // seconds since 1970, as all of them
	NotBefore int64    `json:"nbf"`
	IssuedAt  int64    `json:"iat"`
	ID        string   `json:"jti"`
	Tenant    string   `json:"tenant_id"`
	Scopes    []string `json:"scopes"`
}

// issuer signs tokens with a key that only this room has.
type issuer struct {
	key    *ecdsa.PrivateKey
	kid    string
	signer jose.Signer

	mu    sync.RWMutex
	url   string   // what tokens say from now on
	known []string // what tokens of this key may say
}

// openIssuer reads the signing key in dir, or makes one.
func openIssuer(dir string) (*issuer, error) {
	file := filepath.Join(dir, "token.key")
	text, err := keep(file, func() ([]byte, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		return pemKey(key)
	})
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	key, err := readKey[*ecdsa.PrivateKey](text)
	if err == nil && key.Curve != elliptic.P256() {
		err = errors.New("this is not a key on the curve P-256")
	}
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", file, err)
	}
	i := &issuer{key: key}
	public := jose.JSONWebKey{Key: &key.PublicKey, Algorithm: string(jose.ES256), Use: "sig"}
	thumb, err := public.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	i.kid = base64.RawURLEncoding.EncodeToString(thumb)
	i.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: i.kid}},
		(&jose.SignerOptions{}).WithType(tokenType))
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	return i, nil
}

// sign returns c as a token.
func (i *issuer) sign(c claims) (string, error) {
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	signed, err := i.signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return signed.CompactSerialize()
}

// name returns what tokens say from now on that made them.
func (i *issuer) name() string {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.url
}

// made says whether tokens of this key may say that url made them.
func (i *issuer) made(url string) bool {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return slices.Contains(i.known, url)
}

// maxIssuers bounds how many former addresses tokens may name.
const maxIssuers = 1000

// Reached tells the room under which URL clients reach the server, where that is
// known only once it listens. Tokens made from then on name it; those that name
// an earlier one stay good.
func (r *Room) Reached(ctx context.Context, address string) error {
	address = strings.TrimRight(address, "/")
	if u, err := url.Parse(address); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return errors.New("issuer: want an http or https URL, without query")
	}
	var known []string
	err := r.db.Write(ctx, func(tx *sqldb.Tx) error {
		known = nil
		if _, err := tx.Exec(`INSERT INTO issuer (url, since_ms) VALUES ($1, $2) ON CONFLICT (url) DO UPDATE SET since_ms = $2`, address, r.cfg.Now().UnixMilli()); err != nil {
			return err
		}
		rows, err := tx.Query(`SELECT url FROM issuer ORDER BY since_ms DESC LIMIT $1`, maxIssuers)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var u string
			if err := rows.Scan(&u); err != nil {
				return err
			}
			known = append(known, u)
		}
		return rows.Err()
	})
	if err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	r.issuer.mu.Lock()
	r.issuer.url, r.issuer.known = address, known
	r.issuer.mu.Unlock()
	return r.readdress()
}

// claim returns what a token for sub is to say.
func (r *Room) claim(sub string, tenant ident.Tenant, scopes []string, ttl time.Duration) claims {
	now := r.cfg.Now()
	id := r.cfg.IDs("tok")
	if sub == "" {
		sub = "token:" + id
	}
	return claims{Issuer: r.issuer.name(), Subject: sub, Audience: audience, Expires: now.Add(ttl).Unix(), NotBefore: now.Unix(),
		IssuedAt: now.Unix(), ID: id, Tenant: string(tenant), Scopes: scopes}
}

func pemKey(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// readKey reads a private key of the type K.
func readKey[K crypto.PrivateKey](text []byte) (key K, err error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return key, errors.New("this is not a key in PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return key, errors.New("this is not a private key")
	}
	key, ok := parsed.(K)
	if !ok {
		return key, errors.New("this is a key of another kind")
	}
	return key, nil
}
