package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing/fstest"
	"time"

	"golang.org/x/sync/errgroup"

	"fragua.dev/fragua/internal/sqldb"
)

// finishedJobs measures again with a store that remembers many jobs that have
// ended, and puts the figures beside those of an empty store.
func finishedJobs(ctx context.Context, b *bench) error {
	began := time.Now()
	if err := b.fillStore(ctx, "full"); err != nil {
		return fmt.Errorf("fill the store: %w", err)
	}
	size, err := sizeOf(filepath.Join(b.home, "full"))
	if err != nil {
		return err
	}
	took := time.Since(began)
	var empty, full figures
	var starts, idle []float64
	for i := range b.count {
		for _, c := range []struct {
			name string
			f    *figures
		}{{fmt.Sprintf("empty-%d", i), &empty}, {"full", &full}} {
			s, err := b.serve(ctx, c.name)
			if err != nil {
				return err
			}
			if c.f == &full {
				starts = append(starts, s.Ready.Seconds())
				pause(ctx, 2*time.Second)
				if n, err := memoryMB(s.Pid()); err == nil {
					idle = append(idle, n)
				}
			}
			for _, measure := range []func(context.Context, *server, *figures) error{b.measureLatency, b.measureThroughput, b.measurePost} {
				if err = measure(ctx, s, c.f); err != nil {
					break
				}
			}
			if err = errors.Join(err, s.stop()); err != nil {
				return err
			}
		}
	}
	with := fmt.Sprintf(", with %d finished jobs", b.finished)
	ratio := func(what, unit string, full, empty []float64, more bool) {
		values := make([]float64, len(full))
		for i := range full {
			values[i] = full[i] / empty[i]
			if more {
				values[i] = empty[i] / full[i]
			}
		}
		b.add(row{what: what + with, unit: "×", must: 1.5, aim: 1.1, values: values,
			note: fmt.Sprintf("%s%s against %s%s with an empty store", number(quantile(full, 0.5)), unit, number(quantile(empty, 0.5)), unit)})
	}
	ratio(wordsShare, "", full.share, empty.share, true)
	ratio(wordsP50, " ms", full.p50, empty.p50, false)
	ratio(wordsP99, " ms", full.p99, empty.p99, false)
	ratio(wordsPost, " ms", full.post, empty.post, false)
	b.add(row{what: "start to /readyz" + with, unit: "s", must: 1, aim: 0.3, values: starts,
		note: fmt.Sprintf("the store has %.1f GB; real rows multiplied in each room's database in %v", float64(size)/1e9, took.Round(time.Second))})
	b.add(row{what: "memory" + with, unit: "MB", must: 120, aim: 60, values: idle, note: "server and all its children, PSS, 2s after the start"})
	found, err := schedulingBench(ctx, "^BenchmarkAssign$", "5000x")
	if err != nil {
		return err
	}
	var none, million float64
	for name, v := range found {
		if strings.Contains(name, "ended=0") {
			none = v
		} else {
			million = v
		}
	}
	ratio("assignment on the disk, p95", " ms", []float64{million}, []float64{none}, false)
	b.rows[len(b.rows)-1].what = "assignment on the disk, p95, with 1000000 ended"
	return nil
}

func sizeOf(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}

// fillStore makes a data folder of this name that remembers finished jobs: it runs
// some, and multiplies what the rooms have written down of the last one, under
// other names and at earlier times.
func (b *bench) fillStore(ctx context.Context, name string) error {
	s, err := b.serve(ctx, name)
	if err != nil {
		return err
	}
	var last job
	for range 20 {
		if last, err = s.finish(ctx, 50*time.Millisecond, "echo", "done"); err != nil {
			break
		}
	}
	var whole struct {
		Worker string `json:"worker_id"`
		Steps  []struct {
			ID string `json:"step_id"`
		} `json:"steps"`
	}
	if err == nil {
		_, err = s.Call(ctx, s.client, "GET", "/jobs/"+last.ID, nil, &whole)
	}
	pause(ctx, time.Second) // for what is written down a moment later
	if err := errors.Join(err, s.stop()); err != nil {
		return err
	}
	// Names are a prefix and a body; a name that is made from another has its body.
	var bodies []string
	for _, id := range []string{last.ID, whole.Worker, whole.Steps[0].ID} {
		_, body, _ := strings.Cut(id, "_")
		if body = strings.SplitN(body, "_", 2)[0]; body != "" && !slices.Contains(bodies, body) {
			bodies = append(bodies, body)
		}
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "*.db"))
	if err != nil {
		return err
	}
	deeper, err := filepath.Glob(filepath.Join(s.dir, "*", "*.db"))
	if err != nil {
		return err
	}
	var each errgroup.Group
	each.SetLimit(runtime.NumCPU())
	for _, file := range append(files, deeper...) {
		each.Go(func() error {
			if err := b.multiply(ctx, file, bodies); err != nil {
				return fmt.Errorf("%s: %w", filepath.Base(file), err)
			}
			return nil
		})
	}
	return each.Wait()
}

// A room's own migrations are on the file already: this one is known as done.
var noSchema = fstest.MapFS{"00001_known.sql": {Data: []byte("-- +goose Up\nSELECT 1;\n")}}

// remembered is of how many jobs a room remembers something at most; it lets go of
// more by itself. (telemetry: 200 000 spans, of which a small job has nine.)
var remembered = map[string]int{"console.db": 200_000, "telemetry.db": 200_000 / 9}

const batch = 50_000 // rows' sources in one transaction

// multiply copies the rows of a job in every table of a database.
func (b *bench) multiply(ctx context.Context, file string, bodies []string) (err error) {
	db, err := sqldb.Open(ctx, file, noSchema)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tables, err := list(ctx, db, `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
		AND name NOT LIKE 'goose_%' AND name NOT IN ('outbox', 'dead_letter') ORDER BY name`)
	if err != nil {
		return err
	}
	for _, table := range tables {
		text, err := copying(ctx, db, table, len(bodies))
		if err != nil {
			return err
		}
		if text == "" {
			continue
		}
		rows := int64(0)
		most := b.finished
		if bound, bounded := remembered[filepath.Base(file)]; bounded {
			most = min(most, bound)
		}
		for from := 1; from <= most; from += batch {
			args := []any{from, min(from+batch-1, most)}
			for _, body := range bodies {
				args = append(args, body)
			}
			err := db.Write(ctx, func(tx *sqldb.Tx) error {
				n, err := tx.Exec(text, args...)
				rows += n
				return err
			})
			if err != nil {
				return fmt.Errorf("%s: %w", table, err)
			}
		}
		fmt.Fprintf(os.Stderr, "  %s, %s: %d rows of finished jobs\n", filepath.Base(file), table, rows)
	}
	return nil
}

// copying returns the statement that copies a job's rows of a table: from number
// $1 to number $2, for the job whose names' bodies are $3 and on. It is empty for
// a table that has no text.
func copying(ctx context.Context, db *sqldb.DB, table string, bodies int) (string, error) {
	rows, err := db.Query(ctx, `SELECT name, type, pk FROM pragma_table_info(`+quote(table)+`)`)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	type column struct {
		name, kind string
		key        int
	}
	var all []column
	keys := 0
	for rows.Next() {
		var c column
		if err := rows.Scan(&c.name, &c.kind, &c.key); err != nil {
			return "", err
		}
		all = append(all, c)
		keys = max(keys, c.key)
	}
	if err := rows.Err(); err != nil {
		return "", err
	}
	var columns, values, where []string
	for _, c := range all {
		value := "s." + c.name
		text := c.kind == "TEXT" || c.kind == "BLOB"
		switch {
		case c.kind == "INTEGER" && c.key == 1 && keys == 1:
			continue // SQLite numbers the rows
		case c.name == "hash" || c.name == "sealed":
		case c.name == "decision": // has a name of its own, and sorts by time
			value = `substr(s.decision, 1, 4) || printf('%018d', n.i) || printf('%08d', s.number)`
		case c.name == "trace":
			value = `printf('%032x', n.i)`
		case text:
			value = "CAST(" + value + " AS TEXT)"
			for k := range bodies {
				where = append(where, fmt.Sprintf("instr(CAST(%s AS TEXT), $%d) > 0", c.name, k+3))
				value = fmt.Sprintf("replace(%s, $%d, printf('%%026d', n.i))", value, k+3)
			}
			value = "CASE WHEN s." + c.name + " IS NULL THEN NULL ELSE CAST(" + value + " AS " + c.kind + ") END"
		case strings.HasSuffix(c.name, "_ms"):
			value += " - n.i * 5"
		case strings.HasSuffix(c.name, "_us"):
			value += " - n.i * 5000"
		case strings.HasSuffix(c.name, "_ns"):
			value += " - n.i * 5000000"
		}
		columns, values = append(columns, c.name), append(values, value)
	}
	if len(where) == 0 {
		return "", nil
	}
	return `WITH RECURSIVE n (i) AS (SELECT $1 UNION ALL SELECT i + 1 FROM n WHERE i < $2),
		s AS MATERIALIZED (SELECT *, row_number() OVER () AS number FROM ` + table + ` WHERE ` + strings.Join(where, " OR ") + `)
		INSERT INTO ` + table + ` (` + strings.Join(columns, ", ") + `) SELECT ` + strings.Join(values, ", ") + ` FROM n CROSS JOIN s WHERE true`, nil
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func list(ctx context.Context, db *sqldb.DB, query string) (out []string, err error) {
	rows, err := db.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}
