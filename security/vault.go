package security

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"fragua.dev/fragua/contract/artifacts"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/sqldb"
)

// Bounds of the vault.
const (
	maxSecretBytes = 64 << 10
	maxSecrets     = 1000 // of one tenant
	maxReveal      = 64   // names in one question
	keyBytes       = 32   // AES-256
)

// vault keeps secrets sealed: each with a key of its own, and these with one key
// that stands in a file. What seals also binds a secret to its tenant and name,
// so that a row that is moved does not open.
type vault struct {
	db  *sqldb.DB
	now func() time.Time
	kek cipher.AEAD
}

// openVault reads the vault's key in dir, or makes one while there is nothing
// that another would have to open.
func openVault(ctx context.Context, dir string, db *sqldb.DB, now func() time.Time) (*vault, error) {
	file := filepath.Join(dir, "vault.key")
	key, err := readPrivate(file)
	if errors.Is(err, fs.ErrNotExist) {
		var any bool
		if err := db.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM secret)`).Scan(&any); err != nil {
			return nil, fmt.Errorf("vault: %w", err)
		}
		if any {
			return nil, fmt.Errorf("vault: %s is gone, and the secrets cannot be read without it", file)
		}
		key = make([]byte, keyBytes)
		rand.Read(key) // never fails: see crypto/rand
		err = writePrivate(file, key)
	}
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	if len(key) != keyBytes {
		return nil, fmt.Errorf("vault: %s: want %d bytes", file, keyBytes)
	}
	v := &vault{db: db, now: now}
	if v.kek, err = aead(key); err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	return v, nil
}

func aead(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// bound is what a seal proves besides the secret.
func bound(use string, t ident.Tenant, name string) []byte {
	b := []byte("fragua secret 1 " + use)
	b = binary.BigEndian.AppendUint32(b, uint32(len(t)))
	b = append(b, t...)
	return append(b, name...)
}

// wrapped is how many bytes a sealed key has.
const wrapped = keyBytes + 12 + 16

func (v *vault) seal(t ident.Tenant, name, value string) ([]byte, error) {
	key := make([]byte, keyBytes)
	rand.Read(key)
	own, err := aead(key)
	if err != nil {
		return nil, err
	}
	out := v.kek.Seal(nil, nil, key, bound("key", t, name))
	return own.Seal(out, nil, []byte(value), bound("value", t, name)), nil
}

var errSealed = errors.New("a secret cannot be opened: it was not sealed here, or has been changed")

func (v *vault) open(t ident.Tenant, name string, sealed []byte) (string, error) {
	if len(sealed) < wrapped {
		return "", errSealed
	}
	key, err := v.kek.Open(nil, nil, sealed[:wrapped], bound("key", t, name))
	if err != nil {
		return "", errSealed
	}
	own, err := aead(key)
	if err != nil {
		return "", err
	}
	value, err := own.Open(nil, nil, sealed[wrapped:], bound("value", t, name))
	if err != nil {
		return "", errSealed
	}
	return string(value), nil
}

// secretName is a variable's name, as a step sees it.
var secretName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,254}$`)

func validSecret(name string) bool {
	return secretName.MatchString(name) && !strings.HasPrefix(name, "FRAGUA_") && name != "CI"
}

// Reveal returns the values of a tenant's secrets by name. An error wraps
// [artifacts.ErrNoSecret] and names those that are not set.
func (v *vault) Reveal(ctx context.Context, t ident.Tenant, names []string) (map[string]string, error) {
	if len(names) > maxReveal {
		return nil, fmt.Errorf("reveal secrets: want at most %d at once", maxReveal)
	}
	out := make(map[string]string, len(names))
	var missing []string
	for _, name := range names {
		var sealed []byte
		err := v.db.QueryRow(ctx, `SELECT sealed FROM secret WHERE tenant = $1 AND name = $2`, string(t), name).Scan(&sealed)
		if errors.Is(err, sql.ErrNoRows) {
			missing = append(missing, name)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reveal secrets: %w", err)
		}
		value, err := v.open(t, name, sealed)
		if err != nil {
			return nil, fmt.Errorf("reveal %s: %w", name, err)
		}
		out[name] = value
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%w: %s", artifacts.ErrNoSecret, strings.Join(missing, ", "))
	}
	return out, nil
}

var errVaultFull = errors.New("too many secrets")

// put saves a secret, and says whether it is new.
func (v *vault) put(tx *sqldb.Tx, t ident.Tenant, name string, sealed []byte) (fresh bool, err error) {
	now := v.now().UnixMilli()
	n, err := tx.Exec(`UPDATE secret SET sealed = $1, updated_ms = $2 WHERE tenant = $3 AND name = $4`, sealed, now, string(t), name)
	if err != nil || n > 0 {
		return false, err
	}
	n, err = tx.Exec(`INSERT INTO secret (tenant, name, sealed, created_ms, updated_ms)
		SELECT $1, $2, $3, $4, $4 WHERE (SELECT count(*) FROM secret WHERE tenant = $1) < $5`, string(t), name, sealed, now, maxSecrets)
	if err == nil && n == 0 {
		err = errVaultFull
	}
	return true, err
}
