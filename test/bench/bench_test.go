package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"fragua.dev/fragua/internal/sqldb"
)

// TestMultiply copies a job's rows, in every table that names it, and nothing else.
func TestMultiply(t *testing.T) {
	file := filepath.Join(t.TempDir(), "room.db")
	db, err := sqldb.Open(t.Context(), file, fstest.MapFS{"00001_room.sql": {Data: []byte(`-- +goose Up
		CREATE TABLE job (tenant TEXT NOT NULL, id TEXT NOT NULL, created_ms INTEGER NOT NULL, hash BLOB, body BLOB NOT NULL, PRIMARY KEY (tenant, id)) WITHOUT ROWID;
		CREATE TABLE span (seq INTEGER PRIMARY KEY, body TEXT NOT NULL);
		CREATE TABLE count (n INTEGER NOT NULL);`)}})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Write(t.Context(), func(tx *sqldb.Tx) error {
		for _, q := range []string{
			`INSERT INTO job VALUES ('acme', 'job_0abc', 1000000, x'ff00', '{"id":"job_0abc","step":"stp_1xyz"}'), ('acme', 'job_0other', 5, NULL, '{}')`,
			`INSERT INTO span (body) VALUES ('of job_0abc'), ('of stp_1xyz'), ('of nobody')`,
			`INSERT INTO count VALUES (7)`,
		} {
			if _, err := tx.Exec(q); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{options: options{finished: 120_000}, log: t.Output()}
	if err := b.multiply(t.Context(), file, []string{"0abc", "1xyz"}); err != nil {
		t.Fatal(err)
	}
	if db, err = sqldb.Open(t.Context(), file, noSchema); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for query, want := range map[string]int64{
		`SELECT count(*) FROM job`:   120_002,
		`SELECT count(*) FROM span`:  240_003,
		`SELECT count(*) FROM count`: 1,
		`SELECT count(*) FROM job WHERE CAST(body AS TEXT) = '{"id":"' || id || '","step":"stp_' || substr(id, 5) || '"}' AND typeof(body) = 'blob'`: 120_000,
		`SELECT created_ms FROM job WHERE id = 'job_00000000000000000000000120'`:                                                                     1_000_000 - 600,
		`SELECT hex(hash) = 'FF00' FROM job WHERE id = 'job_00000000000000000000000001'`:                                                             1,
	} {
		var got int64
		if err := db.QueryRow(context.Background(), query).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %d, want %d (%v)", query, got, want, err)
		}
	}
}

func TestRowSaysWhatWasReached(t *testing.T) {
	for _, c := range []struct {
		r       row
		verdict string
		words   string
	}{
		{row{must: 10, aim: 5, unit: "ms", values: []float64{9, 4, 1}}, "aim", "4.00 ms (1.00–9.00)"},
		{row{must: 10, aim: 5, unit: "ms", values: []float64{7}}, "must", "7.00 ms"},
		{row{must: 10, aim: 5, unit: "ms", values: []float64{12.34}}, "MISSED", "12.3 ms"},
		{row{must: 0.25, aim: 0.6, more: true, values: []float64{0.3}}, "must", "0.3"},
		{row{must: 0.25, aim: 0.6, more: true, values: []float64{0.1}}, "MISSED", "0.1"},
		{row{values: []float64{1234.5}}, "", "1234"},
		{row{must: 1, why: "no server"}, "", "not measured: no server"},
	} {
		if c.r.verdict() != c.verdict || c.r.measured() != c.words {
			t.Errorf("%+v: %q, %q; want %q, %q", c.r, c.r.verdict(), c.r.measured(), c.verdict, c.words)
		}
	}
	page := markdown([]row{{what: "a|b", why: "c"}}, thisMachine(1))
	if !strings.Contains(page, `| a\|b | `) {
		t.Errorf("a row breaks the table: %s", page)
	}
}
