package security

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"fragua.dev/fragua/contract/artifacts"
	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/identity"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/sqldb"
)

//go:embed schema/*.sql
var schemaFS embed.FS

// Home is the tenant of those who run the platform.
const Home = ident.Tenant("default")

// Config is what the room is made of. Dir, Now and IDs must be given.
type Config struct {
	Dir string // the room's own folder: its database and keys
	Now func() time.Time
	IDs ident.Source
	Log *slog.Logger

	// Issuer is the URL under which the server is reached, and what tokens say
	// that made them; see also Reached. Tokens made under an earlier one stay good.
	Issuer string
	// TokenFile is the file for the owner's token: owner.token in Dir unless given.
	TokenFile string
	// Policies holds further *.cedar files; nil for none.
	Policies fs.FS
}

// Room is the security room.
type Room struct {
	cfg       Config
	db        *sqldb.DB
	gate      httpapi.Gate
	policies  *policies
	issuer    *issuer
	tokens    *cache
	authority *authority
	vault     *vault
	young     atomic.Pointer[claims] // the owner's token, if this process made it
}

var (
	_ authz.Verifier = (*Room)(nil)
	_ authz.Decider  = (*Room)(nil)
)

// Open opens the room in cfg.Dir, which it makes, with its keys and the owner's
// token, if there is none. A policy that does not fit the schema is an error.
func Open(ctx context.Context, cfg Config) (*Room, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Issuer == "" {
		cfg.Issuer = "http://127.0.0.1:7070"
	}
	if cfg.TokenFile == "" {
		cfg.TokenFile = filepath.Join(cfg.Dir, "owner.token")
	}
	p, err := load(cfg.Policies)
	if err != nil {
		return nil, fmt.Errorf("security: policies: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("security: %w", err)
	}
	r := &Room{cfg: cfg, policies: p, tokens: newCache()}
	if r.db, err = sqldb.Open(ctx, filepath.Join(cfg.Dir, "security.db"), sub(schemaFS)); err != nil {
		return nil, fmt.Errorf("security: %w", err)
	}
	if err := r.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("security: %w", err), r.db.Close())
	}
	return r, nil
}

func sub(f embed.FS) fs.FS {
	s, err := fs.Sub(f, "schema")
	if err != nil {
		panic(err) // the folder is embedded: it is there or nothing was built
	}
	return s
}

func (r *Room) open(ctx context.Context) (err error) {
	r.gate = httpapi.Gate{Decider: r, DB: r.db}
	if r.issuer, err = openIssuer(r.cfg.Dir); err != nil {
		return err
	}
	if r.authority, err = openAuthority(r.cfg.Dir, r.cfg.Now); err != nil {
		return err
	}
	if r.vault, err = openVault(ctx, r.cfg.Dir, r.db, r.cfg.Now); err != nil {
		return err
	}
	if err := r.Reached(ctx, r.cfg.Issuer); err != nil {
		return err
	}
	if err := r.loadRevoked(ctx); err != nil {
		return err
	}
	return r.ensureOwner(ctx)
}

// Name returns security.
func (r *Room) Name() string { return "security" }

// DB returns the room's database.
func (r *Room) DB() *sqldb.DB { return r.db }

// Authority returns who issues the certificates of the house.
func (r *Room) Authority() identity.Authority { return r.authority }

// Vault returns who reveals secrets to the room that hands them to a step.
func (r *Room) Vault() artifacts.Vault { return r.vault }

// Service returns the principal that a room acts as by itself, with the scopes
// that its work needs and no other. Its tenant is [Home]: a room that acts for
// another tenant's job sets that tenant in its copy.
func (r *Room) Service(name string) authz.Principal {
	return authz.Principal{Sub: "service:" + name, Scopes: slices.Clone(services[name]), Tenant: Home}
}

// Run forgets tokens that have expired, until ctx ends.
func (r *Room) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := r.cfg.Now()
		r.tokens.prune(now)
		err := r.db.Write(ctx, func(tx *sqldb.Tx) error {
			_, err := tx.Exec(`DELETE FROM token WHERE expires_ms < $1`, now.Add(-30*24*time.Hour).UnixMilli())
			return err
		})
		if err != nil && ctx.Err() == nil {
			r.cfg.Log.Error("expired tokens could not be removed", "error", err)
		}
	}
}

// Close closes the room's database.
func (r *Room) Close() error { return r.db.Close() }
