package sqldb

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"

	"fragua.dev/fragua/contract/event"
)

// Tx is a transaction that is being written. It is used by one function, for as
// long as that runs.
type Tx struct {
	db      *DB
	writes  int
	emitted []Row
}

// run calls fn; a panic in it is an error of that call alone.
func (tx *Tx) run(fn func(*Tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			tx.writes++ // it may have written: the transaction is spoilt
			err = fmt.Errorf("panic in a transaction: %v", p)
		}
	}()
	return fn(tx)
}

func (tx *Tx) stmt(query string) (*sql.Stmt, error) {
	if s, ok := tx.db.stmts[query]; ok {
		return s, nil
	}
	s, err := tx.db.conn.PrepareContext(context.Background(), rebind(query))
	if err == nil {
		tx.db.stmts[query] = s
	}
	return s, err
}

func (tx *Tx) control(query string) error {
	s, err := tx.stmt(query)
	if err == nil {
		_, err = s.Exec()
	}
	return err
}

// Exec runs a statement and returns how many rows it changed.
func (tx *Tx) Exec(query string, args ...any) (int64, error) {
	s, err := tx.stmt(query)
	if err != nil {
		return 0, err
	}
	tx.writes++
	res, err := s.Exec(args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// QueryRow reads one row, as this transaction sees it.
func (tx *Tx) QueryRow(query string, args ...any) *sql.Row {
	s, err := tx.stmt(query)
	if err != nil {
		return tx.db.conn.QueryRowContext(context.Background(), rebind(query), args...) // fails in the same way, when scanned
	}
	return s.QueryRow(args...)
}

// Query reads rows, as this transaction sees them. The caller closes them before
// anything else is asked.
func (tx *Tx) Query(query string, args ...any) (*sql.Rows, error) {
	s, err := tx.stmt(query)
	if err != nil {
		return nil, err
	}
	return s.Query(args...)
}

const outboxSchema = `
CREATE TABLE IF NOT EXISTS outbox (
	seq  INTEGER PRIMARY KEY AUTOINCREMENT,
	id   TEXT NOT NULL UNIQUE,
	body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS dead_letter (
	id      TEXT NOT NULL,
	room    TEXT NOT NULL,
	body    BLOB NOT NULL,
	reason  TEXT NOT NULL,
	at_ms   INTEGER NOT NULL,
	PRIMARY KEY (id, room)
);`

// Emit puts events into the outbox. One that is already there is not put again.
func (tx *Tx) Emit(events ...event.Event) error {
	for _, e := range events {
		if e.ID == "" {
			continue
		}
		body, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("emit %s: %w", e.ID, err)
		}
		var seq int64
		s, err := tx.stmt(`INSERT INTO outbox (id, body) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING RETURNING seq`)
		if err != nil {
			return err
		}
		tx.writes++
		switch err := s.QueryRow(string(e.ID), body).Scan(&seq); err {
		case nil:
			tx.emitted = append(tx.emitted, Row{seq, e, body})
		case sql.ErrNoRows:
		default:
			return fmt.Errorf("emit %s: %w", e.ID, err)
		}
	}
	return nil
}

// Outbox returns up to limit events after seq, in order.
func (db *DB) Outbox(ctx context.Context, after int64, limit int) ([]Row, error) {
	rows, err := db.Query(ctx, `SELECT seq, body FROM outbox WHERE seq > $1 ORDER BY seq LIMIT $2`, after, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Row
	for rows.Next() {
		var r Row
		if err := rows.Scan(&r.Seq, &r.Body); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(r.Body, &r.Event); err != nil {
			return nil, fmt.Errorf("outbox row %d: %w", r.Seq, err)
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// Forget deletes the outbox up to and including seq.
func (tx *Tx) Forget(seq int64) error {
	_, err := tx.Exec(`DELETE FROM outbox WHERE seq <= $1`, seq)
	return err
}

// SetAside keeps an event that a room could not handle, for people to look at.
func (tx *Tx) SetAside(e event.Event, room, reason string, atMS int64) error {
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO dead_letter (id, room, body, reason, at_ms) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
		string(e.ID), room, body, reason, atMS)
	return err
}

// rebind writes $1 as SQLite does: ?1.
func rebind(query string) string { return strings.ReplaceAll(query, "$", "?") }
