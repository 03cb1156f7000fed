package scheduling

import (
	"database/sql"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"time"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/sqldb"
)

//go:embed schema/*.sql
var files embed.FS

// schema returns the migrations of the room's database.
func schema() fs.FS {
	sub, err := fs.Sub(files, "schema")
	if err != nil {
		panic(err) // the name is not a path: a bug
	}
	return sub
}

const placeColumns = `tenant, job, attempt, id, state, priority, since_ns, seq, cpu_m, memory_mb, gpu, io, body,
	node, offer, provider, reason, rejected, started, round, placed_ms, said_ms, ended_ms`

// scanner is a row, or the one that rows stand at.
type scanner interface{ Scan(...any) error }

func scanPlace(row scanner) (*place, error) {
	var (
		p            = place{stored: true}
		raw          []byte
		placed, said int64
		ended        sql.NullInt64
		q            = &p.Ask.Resources
	)
	err := row.Scan(&p.Tenant, &p.Job, &p.N, &p.id, &p.state, &p.Priority, &p.Since, &p.Seq, &q.CPUm, &q.MemoryMB, &q.GPU, &q.IO, &raw,
		&p.node, &p.offer, &p.provider, &p.reason, &p.rejected, &p.started, &p.round, &placed, &said, &ended)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &p.body); err != nil {
		return nil, fmt.Errorf("assignment %s: %w", p.id, err)
	}
	p.Ask.Affinity, q.Workers = p.body.Affinity, 1
	p.placed, p.said, p.noted = fromMS(placed), fromMS(said), p.started
	if ended.Valid {
		p.ended = fromMS(ended.Int64)
	}
	return &p, nil
}

// savePlace writes the row of p: all of it the first time, and then what can change.
func savePlace(tx *sqldb.Tx, p *place) error {
	var ended any
	if !p.ended.IsZero() {
		ended = toMS(p.ended)
	}
	if p.stored {
		const (
			change = `UPDATE assignments SET state = $4, node = $5, offer = $6, provider = $7, reason = $8, rejected = $9,
				started = $10, round = $11, placed_ms = $12, said_ms = $13`
			end   = `, ended_ms = $14`
			which = ` WHERE tenant = $1 AND job = $2 AND attempt = $3`
		)
		args := []any{
			string(p.Tenant), string(p.Job), p.N, string(p.state), string(p.node), string(p.offer), p.provider, p.reason, p.rejected,
			p.started, p.round, toMS(p.placed), toMS(p.said),
		}
		// Without a word of its end, the indexes of what lives and of what ended are left alone.
		text := change + which
		if ended != nil {
			text, args = change+end+which, append(args, ended)
		}
		_, err := tx.Exec(text, args...)
		return err
	}
	raw, err := json.Marshal(p.body)
	if err != nil {
		return fmt.Errorf("assignment %s: %w", p.id, err)
	}
	q := p.Ask.Resources
	_, err = tx.Exec(`INSERT INTO assignments (`+placeColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)`,
		string(p.Tenant), string(p.Job), p.N, string(p.id), string(p.state), p.Priority, p.Since, p.Seq, q.CPUm, q.MemoryMB, q.GPU, q.IO, string(raw),
		string(p.node), string(p.offer), p.provider, p.reason, p.rejected, p.started, p.round, toMS(p.placed), toMS(p.said), ended)
	return err
}

// newestAttempt returns the number of a job's last attempt that has a row, or -1.
func newestAttempt(tx *sqldb.Tx, k jobKey) (int, error) {
	var n sql.NullInt64
	err := tx.QueryRow(`SELECT max(attempt) FROM assignments WHERE tenant = $1 AND job = $2`, string(k.tenant), string(k.job)).Scan(&n)
	if err != nil || !n.Valid {
		return -1, err
	}
	return int(n.Int64), nil
}

const newestPlace = `SELECT ` + placeColumns + ` FROM assignments WHERE tenant = $1 AND job = $2 ORDER BY attempt DESC LIMIT 1`

// livePlaces returns all that waits or holds capacity.
func livePlaces(tx *sqldb.Tx) (out []*place, err error) {
	rows, err := tx.Query(`SELECT ` + placeColumns + ` FROM assignments WHERE ended_ms IS NULL ORDER BY seq`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		p, err := scanPlace(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

// prune deletes up to limit rows that ended before a time, and says how many.
func prune(tx *sqldb.Tx, before time.Time, limit int) (int64, error) {
	return tx.Exec(`DELETE FROM assignments WHERE (tenant, job, attempt) IN
		(SELECT tenant, job, attempt FROM assignments WHERE ended_ms IS NOT NULL AND ended_ms < $1 ORDER BY ended_ms LIMIT $2)`, toMS(before), limit)
}

func storedNodes(tx *sqldb.Tx) (out []Node, err error) {
	rows, err := tx.Query(`SELECT id, provider, zone, pool, labels, cpu_m, memory_mb, gpu, io, offer, retired FROM nodes ORDER BY id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var (
			n   Node
			raw []byte
			q   spec.Quota
		)
		if err := rows.Scan(&n.ID, &n.Provider, &n.Zone, &n.Pool, &raw, &q.CPUm, &q.MemoryMB, &q.GPU, &q.IO, &n.Offer, &n.Retired); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(raw, &n.Labels); err != nil {
			return nil, fmt.Errorf("node %s: %w", n.ID, err)
		}
		n.Total = q
		out = append(out, n)
	}
	return out, rows.Err()
}

func saveNode(tx *sqldb.Tx, n *Node) error {
	raw, err := json.Marshal(n.Labels)
	if err != nil {
		return fmt.Errorf("node %s: %w", n.ID, err)
	}
	_, err = tx.Exec(`INSERT INTO nodes (id, provider, zone, pool, labels, cpu_m, memory_mb, gpu, io, offer, retired)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (id) DO UPDATE SET provider = excluded.provider, zone = excluded.zone, pool = excluded.pool, labels = excluded.labels,
			cpu_m = excluded.cpu_m, memory_mb = excluded.memory_mb, gpu = excluded.gpu, io = excluded.io,
			offer = excluded.offer, retired = excluded.retired`,
		string(n.ID), n.Provider, n.Zone, n.Pool, string(raw), n.Total.CPUm, n.Total.MemoryMB, n.Total.GPU, n.Total.IO, string(n.Offer), n.Retired)
	return err
}

func deleteNode(tx *sqldb.Tx, id ident.Node) error {
	_, err := tx.Exec(`DELETE FROM nodes WHERE id = $1`, string(id))
	return err
}

func toMS(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMS(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// kept returns t as a row has it: what is answered from memory and what from the row is
// the same.
func kept(t time.Time) time.Time { return fromMS(toMS(t)) }
