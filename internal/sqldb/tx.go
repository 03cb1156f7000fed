package sqldb

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"fragua.dev/fragua/contract/event"
)

// Tx is a transaction that is being written. It is used by one function, for as
// long as that runs.
type Tx struct {
	db      *DB
	begun   bool // in the database: a function that asks nothing of it costs nothing
	writes  int
	emitted []Row
	undo    []func()
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

// begin begins the transaction, if it has not begun, and returns the statement.
func (tx *Tx) begin(query string) (*sql.Stmt, error) {
	if !tx.begun {
		if err := tx.control("BEGIN IMMEDIATE"); err != nil {
			return nil, err
		}
		tx.begun = true
	}
	return tx.stmt(query)
}

func (tx *Tx) rollback() error {
	for _, f := range tx.undo {
		f()
	}
	tx.undo = nil
	if !tx.begun {
		return nil
	}
	return tx.control("ROLLBACK")
}

// Exec runs a statement and returns how many rows it changed.
func (tx *Tx) Exec(query string, args ...any) (int64, error) {
	s, err := tx.begin(query)
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
	s, err := tx.begin(query)
	if err != nil {
		return tx.db.conn.QueryRowContext(context.Background(), rebind(query), args...) // fails in the same way, when scanned
	}
	return s.QueryRow(args...)
}

// Query reads rows, as this transaction sees them. The caller closes them before
// anything else is asked.
func (tx *Tx) Query(query string, args ...any) (*sql.Rows, error) {
	s, err := tx.begin(query)
	if err != nil {
		return nil, err
	}
	return s.Query(args...)
}

const outboxSchema = `
CREATE TABLE IF NOT EXISTS outbox ( -- a row for each commit
	seq  INTEGER PRIMARY KEY, -- of its last event
	body BLOB NOT NULL        -- its events, one JSON object a line
);
CREATE TABLE IF NOT EXISTS relay_mark ( -- how far the outbox has been carried
	way   TEXT    NOT NULL, -- local, or a stream's
	at_ms INTEGER NOT NULL,
	seq   INTEGER NOT NULL,
	PRIMARY KEY (way, at_ms)
);
CREATE TABLE IF NOT EXISTS dead_letter (
	id      TEXT NOT NULL,
	room    TEXT NOT NULL,
	body    BLOB NOT NULL,
	reason  TEXT NOT NULL,
	at_ms   INTEGER NOT NULL,
	PRIMARY KEY (id, room)
);`

// Emit puts events into the outbox, in this order. Those without an id are none.
func (tx *Tx) Emit(events ...event.Event) error {
	for _, e := range events {
		if e.ID == "" {
			continue
		}
		tx.writes++
		tx.emitted = append(tx.emitted, Row{Event: e, Fresh: true, Body: e.AppendJSON(make([]byte, 0, 512+len(e.Data)))})
	}
	return nil
}

// OnRollback has f called when what was written so far comes to nothing, by the
// goroutine that writes: for those who remember what they wrote.
func (tx *Tx) OnRollback(f func()) { tx.undo = append(tx.undo, f) }

// post writes what a whole batch emitted as one row of the outbox: rows cost more
// than bytes.
func (tx *Tx) post() error {
	if len(tx.emitted) == 0 {
		return nil
	}
	body := tx.db.body[:0]
	for i := range tx.emitted {
		tx.emitted[i].Seq = tx.db.seq + int64(i) + 1
		body = append(append(body, tx.emitted[i].Body...), '\n')
	}
	if cap(body) <= keepBody {
		tx.db.body = body
	}
	last := tx.emitted[len(tx.emitted)-1].Seq
	if _, err := tx.Exec(`INSERT INTO outbox (seq, body) VALUES ($1, $2)`, last, body); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	return nil
}

// Outbox returns events after seq, in order: at least limit of them if there are
// so many.
func (db *DB) Outbox(ctx context.Context, after int64, limit int) ([]Row, error) {
	rows, err := db.Query(ctx, `SELECT seq, body FROM outbox WHERE seq > $1 ORDER BY seq`, after)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Row
	for rows.Next() {
		var (
			last int64
			body []byte
		)
		if err := rows.Scan(&last, &body); err != nil {
			return nil, err
		}
		lines := bytes.Split(bytes.TrimSuffix(body, []byte{'\n'}), []byte{'\n'})
		for i, line := range lines {
			r := Row{Seq: last - int64(len(lines)-1-i), Body: line}
			if r.Seq <= after {
				continue
			}
			if err := json.Unmarshal(line, &r.Event); err != nil {
				return nil, fmt.Errorf("outbox row %d: %w", last, err)
			}
			out = append(out, r)
		}
		if len(out) >= limit {
			break
		}
	}
	return out, rows.Err()
}

// Forget deletes the outbox up to and including seq, as far as whole commits go.
func (tx *Tx) Forget(seq int64) error {
	_, err := tx.Exec(`DELETE FROM outbox WHERE seq <= $1`, seq)
	return err
}

// A Mark says up to where events were carried one way, and when.
type Mark struct {
	At  time.Time
	Seq int64
}

// Marks returns the marks of a way, oldest first.
func (db *DB) Marks(ctx context.Context, way string) ([]Mark, error) {
	rows, err := db.Query(ctx, `SELECT at_ms, seq FROM relay_mark WHERE way = $1 ORDER BY at_ms`, way)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Mark
	for rows.Next() {
		var ms, seq int64
		if err := rows.Scan(&ms, &seq); err != nil {
			return nil, err
		}
		out = append(out, Mark{time.UnixMilli(ms), seq})
	}
	return out, rows.Err()
}

// SetMark keeps a mark of a way, and lets go of those before keep.
func (tx *Tx) SetMark(way string, m Mark, keep time.Time) error {
	_, err := tx.Exec(`INSERT INTO relay_mark (way, at_ms, seq) VALUES ($1, $2, $3) ON CONFLICT (way, at_ms) DO UPDATE SET seq = excluded.seq`,
		way, m.At.UnixMilli(), m.Seq)
	if err == nil {
		_, err = tx.Exec(`DELETE FROM relay_mark WHERE way = $1 AND at_ms < $2`, way, keep.UnixMilli())
	}
	return err
}

// ForgetMarks lets go of the marks of all ways but those that are named.
func (tx *Tx) ForgetMarks(but, and string) error {
	_, err := tx.Exec(`DELETE FROM relay_mark WHERE way NOT IN ($1, $2)`, but, and)
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
