package worker

import (
	"context"
	"sync"
	"time"

	"fragua.dev/fragua/internal/sqldb"
)

// A grave is of an attempt that ended before it had a worker.
type grave struct {
	reason string
	at     time.Time
}

// graves are the tombstones of the database, in memory: each assignment asks for
// its own, and hardly any has one.
type graves struct {
	mu  sync.Mutex
	all map[attemptKey]grave
}

// openGraves reads the tombstones.
func openGraves(ctx context.Context, db *sqldb.DB) (*graves, error) {
	g := &graves{all: map[attemptKey]grave{}}
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
		g.all[k] = v
	}
	return g, rows.Err()
}

func (g *graves) of(k attemptKey) (reason string, there bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v, there := g.all[k]
	return v.reason, there
}

// add keeps the first grave of an attempt, as the database does.
func (g *graves) add(k attemptKey, v grave) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, there := g.all[k]; !there {
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
