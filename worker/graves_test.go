package worker

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/sqldb"
)

// TestGravesBeyondTheBoundAreInTheDatabase asks for attempts in memory, in the
// database alone, and in neither.
func TestGravesBeyondTheBoundAreInTheDatabase(t *testing.T) {
	db, err := sqldb.Open(t.Context(), filepath.Join(t.TempDir(), "worker.db"), schema())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	key := func(i int) attemptKey { return attemptKey{"acme", ident.Job(fmt.Sprintf("job_%05d", i)), 1} }
	err = db.Write(t.Context(), func(tx *sqldb.Tx) error {
		for i := range maxGraves + 2 {
			k := key(i)
			if _, err := tx.Exec(`INSERT INTO tombstone (tenant, job, attempt, reason, at_ms) VALUES ($1, $2, $3, $4, $5)`,
				string(k.tenant), string(k.job), k.attempt, "why "+string(k.job), 1); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	g, err := openGraves(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if len(g.all) != maxGraves {
		t.Errorf("%d in memory", len(g.all))
	}
	for _, i := range []int{0, maxGraves, maxGraves + 1} {
		if why, there, err := g.of(t.Context(), key(i)); err != nil || !there || why != "why "+string(key(i).job) {
			t.Errorf("grave %d: %q, %v, %v", i, why, there, err)
		}
	}
	if _, there, err := g.of(t.Context(), key(maxGraves+2)); err != nil || there {
		t.Errorf("an attempt that has none: %v, %v", there, err)
	}
	g.sweep(time.UnixMilli(2))
	if len(g.all) != 0 {
		t.Errorf("%d are left", len(g.all))
	}
}
