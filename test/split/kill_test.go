package split

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	_ "fragua.dev/fragua/internal/sqldb" // the driver named sqlite
)

// TestKills kills processes at random (KILLS times; 8 unless given) while jobs of
// several kinds come in, and sees each job end, once. SEED repeats the choices.
func TestKills(t *testing.T) {
	t.Parallel()
	kills := setting(t, "KILLS", 8)
	seed := setting(t, "SEED", time.Now().UnixNano()%1e9)
	t.Logf("SEED=%d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 1))
	h := open(t, []string{"orchestration", "console"}, []string{"scheduling", "telemetry"}, []string{"security"}, []string{"worker"}, []string{"execution", "artifact"})
	h.call("PUT", "/secrets/TOKEN", map[string]any{"value": secret}, nil)
	var ids []string
	for i := range kills {
		for k := range 3 {
			id := fmt.Sprintf("job_%d_%d", i, k)
			spec := map[string]any{"retries": 2}
			switch k {
			case 0:
				spec["command"] = []string{"sh", "-c", "echo quick"}
			case 1:
				spec["command"], spec["secret_refs"] = []string{"sh", "-c", `sleep 0.3; test "$TOKEN"; echo slow >out`}, []string{"TOKEN"}
				spec["artifacts"] = []map[string]string{{"repository": "kills", "name": id, "version": "1", "path": "out"}}
			case 2:
				spec["steps"] = []map[string]any{{"name": "a", "command": []string{"true"}}, {"name": "b", "command": []string{"sleep", "0.1"}}}
			}
			h.submit(id, spec)
			ids = append(ids, id)
		}
		time.Sleep(time.Duration(random.IntN(150)) * time.Millisecond) // at any moment of their lives
		part := random.IntN(len(h.parts))
		h.run[part].Kill()
		h.launch(part)
		h.await()
	}
	for _, id := range ids {
		h.reaches(id, "SUCCEEDED")
	}
	h.end("ci.job.completed", ids...)
	for i, s := range h.run {
		if err := s.Stop(patience); err != nil {
			t.Errorf("%v: %v", h.parts[i], err)
		}
	}
	h.nothingSetAside()
}

func setting(t *testing.T, name string, otherwise int64) int64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// nothingSetAside says that no room of a house that stands still has an event that it
// could not handle.
func (h *house) nothingSetAside() {
	h.t.Helper()
	files, err := filepath.Glob(filepath.Join(h.dir, "*.db"))
	if err != nil || len(files) < 7 {
		h.t.Fatalf("databases: %v, %v", files, err)
	}
	for _, f := range files {
		db, err := sql.Open("sqlite", f)
		if err != nil {
			h.t.Fatal(err)
		}
		rows, err := db.QueryContext(h.t.Context(), `SELECT id, room, reason FROM dead_letter`)
		if err != nil {
			h.t.Fatal(err)
		}
		for rows.Next() {
			var id, room, reason string
			if err := rows.Scan(&id, &room, &reason); err != nil {
				h.t.Fatal(err)
			}
			h.t.Errorf("%s set aside %s: %s", room, id, reason)
		}
		if err := errors.Join(rows.Err(), rows.Close(), db.Close()); err != nil {
			h.t.Fatal(err)
		}
	}
}
