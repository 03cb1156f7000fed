package security

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/sqldb"
)

// The owner is whoever may read the file with the owner's token.
const (
	ownerSub = "owner"
	ownerTTL = 10 * 365 * 24 * time.Hour
	ownerMin = 30 * 24 * time.Hour // a token with less left is made again at start
)

// ensureOwner sees to it that the owner's file holds a good token.
func (r *Room) ensureOwner(ctx context.Context) error {
	text, err := readPrivate(r.cfg.TokenFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("owner's token: %w", err)
	}
	if err == nil {
		p, err := r.Verify(ctx, strings.TrimSpace(string(text)))
		if err == nil && p.Tenant == Home && slices.Contains(p.Scopes, "*") && p.Expires.Sub(r.cfg.Now()) > ownerMin {
			return nil
		}
	}
	token, made, err := r.mint(ctx, r.claim(ownerSub, Home, []string{"*"}, ownerTTL), authz.Principal{Sub: ownerSub})
	if err != nil {
		return fmt.Errorf("owner's token: %w", err)
	}
	if err := writePrivate(r.cfg.TokenFile, []byte(token+"\n")); err != nil {
		return fmt.Errorf("owner's token: %w", err)
	}
	r.young.Store(&made)
	return nil
}

// readdress has an owner's token that this process made say under which URL the server
// is reached, which it did not know then: who verifies it by what the server publishes
// compares the two. It is the same token otherwise, and both writings of it are good.
func (r *Room) readdress() error {
	c := r.young.Load()
	if c == nil || c.Issuer == r.issuer.name() {
		return nil
	}
	again := *c
	again.Issuer = r.issuer.name()
	token, err := r.issuer.sign(again)
	if err == nil {
		err = writePrivate(r.cfg.TokenFile, []byte(token+"\n"))
	}
	if err != nil {
		return fmt.Errorf("owner's token: %w", err)
	}
	r.young.Store(&again)
	return nil
}

// errRevoked says that the token that another was to be made with has been revoked
// in the meantime.
var errRevoked = errors.New("the token that it would be made with has been revoked")

// mint signs a token and notes by whom and with which it was made, so that it can be
// revoked.
func (r *Room) mint(ctx context.Context, c claims, by authz.Principal, facts ...event.Event) (string, claims, error) {
	token, err := r.issuer.sign(c)
	if err != nil {
		return "", c, err
	}
	err = r.db.Write(ctx, func(tx *sqldb.Tx) error {
		n, err := tx.Exec(`INSERT INTO token (tenant, id, sub, maker, parent, scopes, created_ms, expires_ms) SELECT $1, $2, $3, $4, $5, $6, $7, $8
			WHERE NOT EXISTS (SELECT 1 FROM token WHERE tenant = $9 AND id = $10 AND revoked_ms > 0)`,
			c.Tenant, c.ID, c.Subject, by.Sub, by.Token, strings.Join(c.Scopes, " "), c.IssuedAt*1000, c.Expires*1000, string(by.Tenant), by.Token)
		if err == nil && n == 0 {
			err = errRevoked
		}
		if err == nil {
			err = tx.Emit(facts...)
		}
		return err
	})
	if err != nil {
		return "", c, fmt.Errorf("note a token: %w", err)
	}
	return token, c, nil
}

// loadRevoked reads which tokens are refused though they have not expired.
func (r *Room) loadRevoked(ctx context.Context) error {
	rows, err := r.db.Query(ctx, `SELECT id, expires_ms FROM token WHERE revoked_ms > 0 AND expires_ms > $1`, r.cfg.Now().UnixMilli())
	if err != nil {
		return fmt.Errorf("revoked tokens: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var (
			id string
			ms int64
		)
		if err := rows.Scan(&id, &ms); err != nil {
			return fmt.Errorf("revoked tokens: %w", err)
		}
		r.tokens.revoke(id, time.UnixMilli(ms))
	}
	return rows.Err()
}
