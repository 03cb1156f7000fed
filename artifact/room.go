// Package artifact is the room that keeps what jobs leave behind: it verifies what
// comes in, hands it out, checks it again, and says in which environment it may be
// used.
package artifact

import (
	"context"
	"crypto/sha512"
	"database/sql"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lukechampine.com/blake3"

	"fragua.dev/fragua/contract/artifacts"
	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/blob"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/sqldb"
)

//go:embed schema/*.sql
var schemaFiles embed.FS

const defaultMax = 10 << 30

// Config is what the room is made of.
type Config struct {
	Dir       string
	Now       func() time.Time
	IDs       ident.Source
	Log       *slog.Logger
	Decider   authz.Decider
	Principal authz.Principal // the room's own, for what jobs leave behind
	MaxBytes  int64           // of one artifact; 0 is 10 GiB
}

// Room is the artifact room.
type Room struct {
	cfg   Config
	db    *sqldb.DB
	gate  httpapi.Gate
	store *blob.Store

	// Held for reading while a content gets its row, for writing while one that has
	// none is deleted.
	contents sync.RWMutex
}

// An Artifact is one version of an artifact, as the API shows it.
type Artifact struct {
	spec.ArtifactRef
	Tenant       ident.Tenant  `json:"tenant_id"`
	Checksum     spec.Checksum `json:"checksum"`
	Size         int64         `json:"size_bytes"`
	Environments []string      `json:"environments" nullable:"false" doc:"Where it may be used"`
	Status       string        `json:"status" enum:"valid,corrupt" doc:"As it was last checked"`
	Dependencies []Dependency  `json:"dependencies,omitempty" nullable:"false"`
	Created      time.Time     `json:"created_at"`
	Checked      time.Time     `json:"checked_at"`
	Owner        string        `json:"owner,omitempty"`

	sum string // SHA-256, under which the content is kept
}

// A Dependency says what an artifact needs.
type Dependency struct {
	From       spec.ArtifactRef   `json:"from"`
	To         []spec.ArtifactRef `json:"to" maxItems:"256" nullable:"false"`
	Constraint string             `json:"constraint,omitempty" maxLength:"256" doc:"A range of semantic versions, such as ^1.2 or >=1.0, <2.0"`
}

// Open opens the room on its database and its folder of contents.
func Open(ctx context.Context, cfg Config) (*Room, error) {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = defaultMax
	}
	schema, err := fs.Sub(schemaFiles, "schema")
	if err != nil {
		return nil, err
	}
	store, err := blob.Open(filepath.Join(cfg.Dir, "artifacts"))
	if err != nil {
		return nil, err
	}
	db, err := sqldb.Open(ctx, filepath.Join(cfg.Dir, "artifact.db"), schema)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &Room{cfg: cfg, db: db, gate: httpapi.Gate{Decider: cfg.Decider, DB: db}, store: store}, nil
}

// Name returns artifact.
func (r *Room) Name() string { return "artifact" }

// DB returns the room's database.
func (r *Room) DB() *sqldb.DB { return r.db }

// Subscriptions returns nothing: the room is asked, and tells.
func (r *Room) Subscriptions() []bus.Subscription { return nil }

// Run deletes contents that have no artifact: a process that was killed in between
// leaves them. It returns when ctx ends.
func (r *Room) Run(ctx context.Context) error {
	err := r.store.Each(func(t ident.Tenant, sum string) error { return r.discard(ctx, t, sum) })
	if err != nil && ctx.Err() == nil {
		r.cfg.Log.Warn("contents without an artifact stay", "error", err)
	}
	<-ctx.Done()
	return nil
}

// Close closes the database and the folder.
func (r *Room) Close() error { return errors.Join(r.db.Close(), r.store.Close()) }

// parseChecksum reads algo:HEX, and returns the hash that proves it, unless that is
// SHA-256, which every content has.
func parseChecksum(s string) (spec.Checksum, hash.Hash, bool) {
	algo, value, _ := strings.Cut(strings.ToLower(s), ":")
	raw, err := hex.DecodeString(value)
	switch {
	case err != nil:
	case algo == "sha256" && len(raw) == 32:
		return spec.Checksum{Algo: algo, Value: value}, nil, true
	case algo == "sha512" && len(raw) == 64:
		return spec.Checksum{Algo: algo, Value: value}, sha512.New(), true
	case algo == "blake3" && len(raw) == 32:
		return spec.Checksum{Algo: algo, Value: value}, blake3.New(32, nil), true
	}
	return spec.Checksum{}, nil, false
}

var errAbsent = errors.New("no such artifact")

const byRef = ` FROM artifact WHERE tenant = $1 AND repository = $2 AND name = $3 AND version = $4`

func decode(row interface{ Scan(...any) error }) (*Artifact, error) {
	var (
		a    Artifact
		body []byte
	)
	err := row.Scan(&a.sum, &body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errAbsent
	}
	if err != nil {
		return nil, err
	}
	return &a, json.Unmarshal(body, &a)
}

func (r *Room) read(ctx context.Context, t ident.Tenant, ref spec.ArtifactRef) (*Artifact, error) {
	return decode(r.db.QueryRow(ctx, `SELECT sum, body`+byRef, string(t), ref.Repository, ref.Name, ref.Version))
}

func load(tx *sqldb.Tx, t ident.Tenant, ref spec.ArtifactRef) (*Artifact, error) {
	return decode(tx.QueryRow(`SELECT sum, body`+byRef, string(t), ref.Repository, ref.Name, ref.Version))
}

func save(tx *sqldb.Tx, a *Artifact) error {
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO artifact (tenant, repository, name, version, sum, body) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (tenant, repository, name, version) DO UPDATE SET body = excluded.body`,
		string(a.Tenant), a.Repository, a.Name, a.Version, a.sum, body)
	return err
}

// times tells what happens to a from what happened to one of the same name, which was
// deleted.
func (a *Artifact) times() string { return strconv.FormatInt(a.Created.UnixMicro(), 36) }

func about(ctx context.Context, a *Artifact, twist string, now time.Time) event.About {
	return event.About{
		Tenant: a.Tenant, Key: a.ArtifactRef.String(), Twist: twist,
		Correlation: httpapi.Correlation(ctx), TraceParent: httpapi.TraceParent(ctx), At: now,
	}
}

// keep stores what was received under a's name, with what was decided. fresh is
// false when the same is there already. What is refused leaves nothing.
func (r *Room) keep(ctx context.Context, a *Artifact, in *blob.Incoming, facts ...event.Event) (kept *Artifact, fresh bool, err error) {
	a.sum, a.Size = in.Sum, in.Size
	kept, fresh, err = r.enter(ctx, a, in, facts)
	if err != nil {
		err = errors.Join(err, r.discard(context.WithoutCancel(ctx), a.Tenant, a.sum))
	}
	return kept, fresh, err
}

// discard deletes a content, unless an artifact of the tenant has it.
func (r *Room) discard(ctx context.Context, t ident.Tenant, sum string) error {
	r.contents.Lock()
	defer r.contents.Unlock()
	var n int
	err := r.db.QueryRow(ctx, `SELECT COUNT(*) FROM artifact WHERE sum = $1 AND tenant = $2`, sum, string(t)).Scan(&n)
	if err != nil || n > 0 {
		return err
	}
	return r.store.Delete(t, sum)
}

func (r *Room) enter(ctx context.Context, a *Artifact, in *blob.Incoming, facts []event.Event) (kept *Artifact, fresh bool, err error) {
	r.contents.RLock()
	defer r.contents.RUnlock()
	if err := in.Keep(a.Tenant); err != nil {
		in.Drop()
		return nil, false, err
	}
	err = r.db.Write(ctx, func(tx *sqldb.Tx) error {
		kept, fresh = a, false
		old, err := load(tx, a.Tenant, a.ArtifactRef)
		switch {
		case err == nil && old.sum != a.sum:
			return artifacts.ErrConflict
		case err == nil:
			kept = old
			return tx.Emit(facts...)
		case !errors.Is(err, errAbsent):
			return err
		}
		fresh = true
		if err := save(tx, a); err != nil {
			return err
		}
		fact := event.ArtifactUploaded.Event(about(ctx, a, a.sum[:16]+"."+a.times(), a.Created), event.ArtifactKept{Ref: a.ArtifactRef, Checksum: a.Checksum, Size: a.Size})
		return tx.Emit(append(facts, fact)...)
	})
	return kept, fresh, err
}

// keeper is the room for other rooms.
type keeper struct{ r *Room }

// Keeper returns the way in for other rooms.
func (r *Room) Keeper() artifacts.Keeper { return keeper{r} }

func (k keeper) decide(ctx context.Context, t ident.Tenant, action string, ref spec.ArtifactRef, attrs map[string]any) (authz.Answer, error) {
	p := k.r.cfg.Principal
	p.Tenant = t
	a := k.r.cfg.Decider.Decide(ctx, authz.Question{
		Principal: p, Action: action, Resource: authz.Resource{Type: "Artifact", ID: ref.String(), Tenant: t, Attrs: attrs},
		TraceParent: httpapi.TraceParent(ctx), Correlation: httpapi.Correlation(ctx),
	})
	if a.Permit {
		return a, nil
	}
	err := k.r.db.Write(ctx, func(tx *sqldb.Tx) error { return tx.Emit(a.Event) })
	return a, errors.Join(fmt.Errorf("artifact: not permitted: %s", a.Reason), err)
}

func attrs(ref spec.ArtifactRef, checksum string, valid bool) map[string]any {
	return map[string]any{"repository": ref.Repository, "environment": "", "checksum": checksum, "checksum_valid": valid}
}

// Keep stores what r yields under ref.
func (k keeper) Keep(ctx context.Context, t ident.Tenant, ref spec.ArtifactRef, r io.Reader) error {
	if !ident.Valid(ref.Repository) || !ident.Valid(ref.Name) || !ident.Valid(ref.Version) {
		return fmt.Errorf("artifact: %s is no name", ref)
	}
	in, err := k.r.store.Receive(ctx, r, k.r.cfg.MaxBytes, nil)
	if err != nil {
		return err
	}
	answer, err := k.decide(ctx, t, "Artifact::upload", ref, attrs(ref, "sha256:"+in.Sum, true))
	if err != nil {
		in.Drop()
		return err
	}
	now := k.r.cfg.Now().UTC()
	_, _, err = k.r.keep(ctx, &Artifact{
		ArtifactRef: ref, Tenant: t, Checksum: spec.Checksum{Algo: "sha256", Value: in.Sum}, Status: "valid",
		Environments: []string{}, Created: now, Checked: now, Owner: k.r.cfg.Principal.Sub,
	}, in, answer.Event)
	return err
}

// Open returns the content of ref.
func (k keeper) Open(ctx context.Context, t ident.Tenant, ref spec.ArtifactRef) (io.ReadCloser, error) {
	a, err := k.r.read(ctx, t, ref)
	if errors.Is(err, errAbsent) {
		return nil, fmt.Errorf("%w: %s", artifacts.ErrNotFound, ref)
	}
	if err != nil {
		return nil, err
	}
	if a.Status != "valid" {
		return nil, fmt.Errorf("%s: %w", ref, errCorrupt)
	}
	answer, err := k.decide(ctx, t, "Artifact::read", ref, attrs(ref, "", true))
	if err != nil {
		return nil, err
	}
	if err := k.r.db.Write(ctx, func(tx *sqldb.Tx) error { return tx.Emit(answer.Event) }); err != nil {
		return nil, err
	}
	f, err := k.r.open(ctx, a)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return f, nil
}

// promote lets a be used in an environment; it says whether that is new.
func (a *Artifact) promote(env string) bool {
	if slices.Contains(a.Environments, env) {
		return false
	}
	a.Environments = append(a.Environments, env)
	return true
}
