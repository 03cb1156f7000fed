package orchestration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/sqldb"
)

//go:embed schema/*.sql
var schemaFiles embed.FS

func schema() fs.FS {
	sub, err := fs.Sub(schemaFiles, "schema")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}

// errAbsent says that there is no such row, for this tenant.
var errAbsent = errors.New("not there")

// fingerprint tells whether two requests ask for the same.
func fingerprint(parts ...any) []byte {
	h := sha256.New()
	e := json.NewEncoder(h)
	for _, p := range parts {
		if err := e.Encode(p); err != nil {
			panic(fmt.Sprintf("orchestration: %v", err)) // our own types
		}
	}
	return h.Sum(nil)
}

func decode[T any](row interface{ Scan(...any) error }, into *T) error {
	var body []byte
	err := row.Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return errAbsent
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}

// encode writes a row's body without escaping <, > and &.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// maxKnown bounds the live jobs whose rows are remembered.
const maxKnown = 20_000

type jobKey struct {
	tenant ident.Tenant
	id     ident.Job
}

// known remembers live jobs as their rows are, and those that ended last: each
// moves several times within a second or two, and reading a row costs more than
// writing it. It belongs to the goroutine that writes, which calls the functions of
// transactions.
type known struct {
	jobs  map[jobKey]*job
	ended [1024]jobKey // a ring: whoever is overwritten is forgotten
	next  int
}

// remember takes note of j as it has been written in tx.
func (k *known) remember(tx *sqldb.Tx, j *job) {
	key := jobKey{j.Tenant, j.ID}
	before := k.jobs[key]
	switch {
	case before == nil && (j.over() || len(k.jobs) >= maxKnown):
		return
	case j.over() && !before.over():
		delete(k.jobs, k.ended[k.next])
		k.ended[k.next] = key
		k.next = (k.next + 1) % len(k.ended)
	}
	k.jobs[key] = j.clone()
	tx.OnRollback(func() { delete(k.jobs, key) })
}

// clone returns a copy that shares only what never changes.
func (j *job) clone() *job {
	c := *j
	c.Steps = slices.Clone(j.Steps)
	return &c
}

func (k *known) load(tx *sqldb.Tx, t ident.Tenant, id ident.Job) (*job, error) {
	j, err := k.look(tx, t, id)
	if err != nil {
		return j, err
	}
	return j.clone(), nil
}

// look returns a job as its row is; nothing of it is to be changed.
func (k *known) look(tx *sqldb.Tx, t ident.Tenant, id ident.Job) (*job, error) {
	if j := k.jobs[jobKey{t, id}]; j != nil {
		return j, nil
	}
	return loadJob(tx, t, id)
}

func loadJob(tx *sqldb.Tx, t ident.Tenant, id ident.Job) (*job, error) {
	j := &job{}
	return j, decode(tx.QueryRow(`SELECT body FROM job WHERE tenant = $1 AND id = $2`, string(t), string(id)), j)
}

func (r *Room) readJob(ctx context.Context, t ident.Tenant, id ident.Job) (*job, error) {
	j := &job{}
	return j, decode(r.db.QueryRow(ctx, `SELECT body FROM job WHERE tenant = $1 AND id = $2`, string(t), string(id)), j)
}

func live(j *job) int {
	if j.over() {
		return 0
	}
	return 1
}

// due returns when the reconciler should look at a job that was saved now.
func (j *job) due(now time.Time) time.Time {
	if j.State == Pending && !j.RetryAt.IsZero() && j.Occupied == 0 && j.RetryAt.After(now) {
		return j.RetryAt
	}
	return now.Add(staleAfter << min(j.Round, 5)).Truncate(time.Millisecond) // as its row has it
}

func (k *known) insert(tx *sqldb.Tx, j *job, hash []byte, now time.Time) error {
	j.Due = j.due(now)
	body, err := encode(j)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO job (tenant, id, run, pipeline, state, live, created_ms, due_ms, hash, body)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		string(j.Tenant), string(j.ID), string(j.Run), string(j.Pipeline), string(j.State), live(j), j.Created.UnixMilli(), j.Due.UnixMilli(), hash, body)
	if err == nil {
		k.remember(tx, j)
	}
	return err
}

func (k *known) save(tx *sqldb.Tx, j *job, now time.Time) error {
	j.Due = j.due(now)
	body, err := encode(j)
	if err != nil {
		return err
	}
	if old := k.jobs[jobKey{j.Tenant, j.ID}]; old != nil && live(old) == 1 && live(j) == 1 {
		// Without a word of live, the indexes of what lives are left alone.
		_, err = tx.Exec(`UPDATE job SET state = $1, due_ms = $2, body = $3 WHERE tenant = $4 AND id = $5`,
			string(j.State), j.Due.UnixMilli(), body, string(j.Tenant), string(j.ID))
	} else {
		_, err = tx.Exec(`UPDATE job SET state = $1, live = $2, due_ms = $3, body = $4 WHERE tenant = $5 AND id = $6`,
			string(j.State), live(j), j.Due.UnixMilli(), body, string(j.Tenant), string(j.ID))
	}
	if err == nil {
		k.remember(tx, j)
	}
	return err
}

func loadRun(tx *sqldb.Tx, t ident.Tenant, id ident.Run) (*run, error) {
	r := &run{}
	return r, decode(tx.QueryRow(`SELECT body FROM run WHERE tenant = $1 AND id = $2`, string(t), string(id)), r)
}

func insertRun(tx *sqldb.Tx, r *run, hash []byte) error {
	body, err := encode(r)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO run (tenant, id, pipeline, state, created_ms, hash, body) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		string(r.Tenant), string(r.ID), string(r.Pipeline), string(r.State), r.Created.UnixMilli(), hash, body)
	return err
}

func saveRun(tx *sqldb.Tx, r *run) error {
	body, err := encode(r)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE run SET state = $1, body = $2 WHERE tenant = $3 AND id = $4`,
		string(r.State), body, string(r.Tenant), string(r.ID))
	return err
}

// runBegins notes that a job of a run is on its way. The body says so when a job has
// ended: to write it again for the first of each would cost more than the job.
func runBegins(tx *sqldb.Tx, t ident.Tenant, id ident.Run) error {
	_, err := tx.Exec(`UPDATE run SET state = $1 WHERE tenant = $2 AND id = $3 AND state = $4`, string(Running), string(t), string(id), string(Pending))
	return err
}

// members returns all jobs of a run, of earlier tries too.
func members(tx *sqldb.Tx, t ident.Tenant, id ident.Run) (map[ident.Job]*job, error) {
	rows, err := tx.Query(`SELECT body FROM job WHERE run = $2 AND run <> '' AND tenant || '' = $1`, string(t), string(id))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[ident.Job]*job{}
	for rows.Next() {
		j := &job{}
		if err := decode(rows, j); err != nil {
			return nil, err
		}
		out[j.ID] = j
	}
	return out, rows.Err()
}
