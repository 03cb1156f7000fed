package console

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"fragua.dev/fragua/internal/sqldb"
)

const columns = `tenant, id, name, pipeline, run, state, attempt, progress, created_ns, started_ns, finished_ns, node, worker, step, steps, failure`

// scan reads a row of columns.
func scan(row interface{ Scan(...any) error }) (job, error) {
	var (
		j                          job
		created, started, finished int64
		steps, fault               string
	)
	err := row.Scan(&j.tenant, &j.id, &j.name, &j.pipeline, &j.run, &j.state, &j.attempt, &j.progress, &created, &started, &finished,
		&j.node, &j.worker, &j.step, &steps, &fault)
	if err != nil {
		return j, err
	}
	j.created, j.started, j.finished = at(created), at(started), at(finished)
	if err := json.Unmarshal([]byte(steps), &j.steps); err != nil {
		return j, err
	}
	if fault != "" {
		err = json.Unmarshal([]byte(fault), &j.failure)
	}
	return j, err
}

// load reads a job; the zero job if it was never heard of.
func load(tx *sqldb.Tx, k jobKey) (job, error) {
	j, err := scan(tx.QueryRow(`SELECT `+columns+` FROM job WHERE tenant = $1 AND id = $2`, string(k.tenant), string(k.id)))
	if errors.Is(err, sqldb.ErrNoRows) {
		return job{}, nil
	}
	return j, err
}

// save writes what became of a job that was old. Columns of indexes are written
// only when they change, which they hardly ever do.
func save(tx *sqldb.Tx, old, j job) error {
	fault := ""
	if j.failure != (failure{}) {
		b, err := json.Marshal(j.failure)
		if err != nil {
			return err
		}
		fault = string(b)
	}
	steps, err := json.Marshal(append([]string{}, j.steps...))
	if err != nil {
		return err
	}
	if old.id != "" && old.pipeline == j.pipeline && old.run == j.run && old.created.Equal(j.created) {
		if class(old.state) == class(j.state) {
			_, err := tx.Exec(`UPDATE job SET name = $3, state = $4, attempt = $5, progress = $6, started_ns = $7, finished_ns = $8, node = $9, worker = $10,
				step = $11, steps = $12, failure = $13 WHERE tenant = $1 AND id = $2`,
				string(j.tenant), string(j.id), j.name, j.state, j.attempt, j.progress, nano(j.started), nano(j.finished),
				string(j.node), string(j.worker), j.step, string(steps), fault)
			return err
		}
		_, err := tx.Exec(`UPDATE job SET name = $3, state = $4, attempt = $5, progress = $6, started_ns = $7, finished_ns = $8, node = $9, worker = $10,
			step = $11, steps = $12, failure = $13, class = $14 WHERE tenant = $1 AND id = $2`,
			string(j.tenant), string(j.id), j.name, j.state, j.attempt, j.progress, nano(j.started), nano(j.finished),
			string(j.node), string(j.worker), j.step, string(steps), fault, class(j.state))
		return err
	}
	_, err = tx.Exec(`INSERT INTO job (`+columns+`, class) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
		ON CONFLICT (tenant, id) DO UPDATE SET name = excluded.name, pipeline = excluded.pipeline, run = excluded.run, state = excluded.state,
		attempt = excluded.attempt, progress = excluded.progress, created_ns = excluded.created_ns, started_ns = excluded.started_ns,
		finished_ns = excluded.finished_ns, node = excluded.node, worker = excluded.worker, step = excluded.step, steps = excluded.steps,
		failure = excluded.failure, class = excluded.class`,
		string(j.tenant), string(j.id), j.name, string(j.pipeline), string(j.run), j.state, j.attempt, j.progress,
		nano(j.created), nano(j.started), nano(j.finished), string(j.node), string(j.worker), j.step, string(steps), fault, class(j.state))
	return err
}

const maxShrink = 500 // jobs that are let go of in one transaction

// shrink lets go of ended jobs that are too old or too many, oldest first, a few
// at a time so that nothing waits for it.
func (r *Room) shrink(ctx context.Context) error {
	var n int
	if err := r.db.QueryRow(ctx, `SELECT COUNT(*) FROM job`).Scan(&n); err != nil {
		return err
	}
	cutoff := nano(r.cfg.Now().Add(-r.cfg.KeepFor))
	for ctx.Err() == nil {
		var gone int64
		err := r.db.Write(ctx, func(tx *sqldb.Tx) (err error) {
			gone, err = tx.Exec(`DELETE FROM job WHERE rowid IN (SELECT rowid FROM (SELECT rowid, finished_ns FROM job WHERE class <> 0 ORDER BY rowid LIMIT $1)
				LIMIT $2) OR rowid IN (SELECT rowid FROM (SELECT rowid, finished_ns FROM job WHERE class <> 0 ORDER BY rowid LIMIT $1) WHERE finished_ns < $3)`,
				maxShrink, min(maxShrink, max(0, n-r.cfg.MaxJobs)), cutoff)
			return err
		})
		if err != nil {
			return err
		}
		if n -= int(gone); gone < maxShrink {
			return nil
		}
	}
	return ctx.Err()
}

func nano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func at(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
