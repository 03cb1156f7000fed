package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"fragua.dev/fragua/internal/sqldb"
)

// A grave is of an attempt that ended before it had a worker.
type grave struct {
	reason string
	at     time.Time
}

// maxGraves bounds the tombstones in memory.
const maxGraves = 50_000

// graves are the tombstones of the database, in memory: each assignment asks for
// its own, and hardly any has one.
type graves struct {
	db *sqldb.DB

	mu   sync.Mutex
	all  map[attemptKey]grave
	more bool // there are some in the database alone
}

// openGraves reads the tombstones.
func openGraves(ctx context.Context, db *sqldb.DB) (*graves, error) {
	g := &graves{db: db, all: map[attemptKey]grave{}}
	rows, err := db.Query(ctx, `SELECT tenant, job, attempt, reason, at_ms FROM tombstone`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var (
			k  attemptKey
			v  grave
			ms int64
		)
		if err := rows.Scan(&k.tenant, &k.job, &k.attempt, &v.reason, &ms); err != nil {
			return nil, err
		}
		v.at = time.UnixMilli(ms)
		g.add(k, v)
	}
	return g, rows.Err()
}

// of returns why an attempt ended before it had a worker, if it did.
func (g *graves) of(ctx context.Context, k attemptKey) (reason string, there bool, err error) {
	g.mu.Lock()
	v, there := g.all[k]
	more := g.more
	g.mu.Unlock()
	if there || !more {
		return v.reason, there, nil
	}
	err = g.db.QueryRow(ctx, `SELECT reason FROM tombstone WHERE tenant = $1 AND job = $2 AND attempt = $3`,
		string(k.tenant), string(k.job), k.attempt).Scan(&reason)
	if errors.Is(err, sqldb.ErrNoRows) {
		return "", false, nil
	}
	return reason, err == nil, err
}

// add keeps the first grave of an attempt, as the database does.
func (g *graves) add(k attemptKey, v grave) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch _, there := g.all[k]; {
	case there:
	case len(g.all) >= maxGraves:
		g.more = true
	default:
		g.all[k] = v
	}
}

// sweep lets go of those from before a time.
func (g *graves) sweep(before time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for k, v := range g.all {
		if v.at.Before(before) {
			delete(g.all, k)
		}
	}
}
