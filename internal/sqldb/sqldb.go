package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite" // also the driver of this name

	"fragua.dev/fragua/contract/event"
)

// Errors, for errors.Is.
var (
	ErrClosed = errors.New("the database is closed")
	ErrFull   = errors.New("the disk is full")
	ErrNoRows = sql.ErrNoRows
)

const keepBody = 256 << 10 // bytes of a row of the outbox whose space is kept

// maxBatch bounds how many transactions share one commit.
const maxBatch = 256

// Under load a commit waits until gather after the one before, so that more share
// it; a commit costs as much CPU as several transactions. Who is alone waits for
// nobody.
const (
	gather  = 4 * time.Millisecond
	crowded = 2 // transactions in the commit before
)

// Each connection keeps pages of the file in memory, a page in twice its size (the
// allocator's classes are powers of two). The writer lets go of them after restAfter
// without work; a reader's are void as soon as somebody writes, and are few.
const (
	writerPages = "cache_size(-4000)" // kB
	readerPages = "cache_size(-500)"
	restAfter   = time.Second
)

// A commit waits for its data and the file's size, not for timestamps: that is as
// durable, and saves a write to the file system's journal.
func init() {
	_, _ = sqlite.Fdatasync(true) // where there is no such call, fsync stays
}

// DB is a room's database.
type DB struct {
	write    *sql.DB
	read     *sql.DB
	conn     *sql.Conn
	stmts    map[string]*sql.Stmt // of conn; the writer's alone
	reads    sync.Map             // query → *sql.Stmt of read
	ask      chan request
	quit     chan struct{}
	done     chan struct{}
	closing  sync.Once
	onCommit func([]Row)
	full     atomic.Bool // the last commit found no room
	seq      int64       // of the last event; the writer's alone
	body     []byte      // the space of the last row of the outbox, for the next; the writer's alone
	began    time.Time   // the last commit
	crowd    int         // how many shared it
}

// A Row is an event in the outbox. Seq grows by commit.
type Row struct {
	Seq   int64
	Event event.Event
	Body  []byte // the event in JSON
	Fresh bool   // it comes straight from its commit, and was not read again
}

type request struct {
	ctx    context.Context
	fn     func(*Tx) error
	answer chan error
}

// Open opens the database in file, which it makes if there is none, and brings
// its schema up to date from the goose migrations in schema. The name :memory:
// keeps it in memory, under name, until Close.
func Open(ctx context.Context, file string, schema fs.FS) (*DB, error) {
	dsn := func(mode string) string {
		q := url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)",
			"foreign_keys(ON)", "temp_store(MEMORY)", "wal_autocheckpoint(2000)", "journal_size_limit(67108864)"}}
		if name, memory := strings.CutPrefix(file, ":memory:"); memory {
			q.Set("mode", "memory")
			q.Set("cache", "shared")
			return "file:" + url.PathEscape(name) + "?" + q.Encode()
		}
		if mode == "ro" {
			q["_pragma"] = append(q["_pragma"], "query_only(ON)", readerPages)
		} else {
			q["_pragma"] = append(q["_pragma"], writerPages)
		}
		return "file:" + (&url.URL{Path: file}).EscapedPath() + "?" + q.Encode()
	}
	if !strings.HasPrefix(file, ":memory:") { // what SQLite puts beside it gets the same mode
		f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open: %w", err)
		}
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("open: %w", err)
		}
	}
	w, err := sql.Open("sqlite", dsn("rw"))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, err)
	}
	w.SetMaxOpenConns(1)
	r, err := sql.Open("sqlite", dsn("ro"))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, errors.Join(err, w.Close()))
	}
	r.SetMaxOpenConns(4)
	db := &DB{
		write: w, read: r, stmts: map[string]*sql.Stmt{},
		ask: make(chan request, 4*maxBatch), quit: make(chan struct{}), done: make(chan struct{}),
		onCommit: func([]Row) {},
	}
	if err := db.migrate(ctx, schema); err != nil {
		return nil, fmt.Errorf("open %s: %w", file, errors.Join(err, r.Close(), w.Close()))
	}
	if db.conn, err = w.Conn(ctx); err != nil {
		return nil, fmt.Errorf("open %s: %w", file, errors.Join(err, r.Close(), w.Close()))
	}
	// Numbers go on from where any part of the outbox ever was, also of what is forgotten.
	if err := db.conn.QueryRowContext(ctx, `SELECT COALESCE(MAX(seq), 0) FROM (SELECT seq FROM outbox UNION ALL SELECT seq FROM relay_mark)`).Scan(&db.seq); err != nil {
		return nil, fmt.Errorf("open %s: %w", file, errors.Join(err, db.conn.Close(), r.Close(), w.Close()))
	}
	go db.writer()
	return db, nil
}

func (db *DB) migrate(ctx context.Context, schema fs.FS) error {
	if _, err := db.write.ExecContext(ctx, outboxSchema); err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db.write, schema, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// OnCommit has f called with the events of each commit, in order, before the
// calls of Write that made them return. f must not block. Call it before the
// first Write.
func (db *DB) OnCommit(f func([]Row)) { db.onCommit = f }

// Write runs fn in a transaction and returns once it is durable. fn may run more
// than once, and must do nothing but read and write through its Tx. Other calls'
// functions run in the same transaction, before or after it, never interleaved.
func (db *DB) Write(ctx context.Context, fn func(*Tx) error) error {
	r := request{ctx, fn, make(chan error, 1)}
	select {
	case db.ask <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-db.quit:
		return ErrClosed
	}
	select {
	case err := <-r.answer:
		return err
	case <-db.done:
		select {
		case err := <-r.answer:
			return err
		default:
			return ErrClosed
		}
	}
}

// writer is the one goroutine that writes.
func (db *DB) writer() {
	defer close(db.done)
	batch := make([]request, 0, maxBatch)
	rest := time.NewTimer(restAfter)
	defer rest.Stop()
	for {
		batch = batch[:0]
		select {
		case r := <-db.ask:
			batch = append(batch, r)
		case <-rest.C:
			// It only makes the process smaller: if it fails, nothing is lost.
			_, _ = db.conn.ExecContext(context.Background(), "PRAGMA shrink_memory")
			continue
		case <-db.quit:
			return
		}
		rest.Reset(restAfter)
		if db.crowd >= crowded {
			if left := gather - time.Since(db.began); left > 0 {
				time.Sleep(left)
			}
		}
		for len(batch) < maxBatch {
			select {
			case r := <-db.ask:
				batch = append(batch, r)
				continue
			default:
			}
			break
		}
		db.began, db.crowd = time.Now(), len(batch)
		db.commit(batch)
	}
}

// commit runs a batch in one transaction. A function that fails after it wrote
// something spoils the transaction: it is answered, and the others run again.
func (db *DB) commit(batch []request) {
	for len(batch) > 0 {
		tx := &Tx{db: db}
		errs := make([]error, len(batch))
		spoilt := -1
		for i, r := range batch {
			if err := r.ctx.Err(); err != nil {
				errs[i] = err
				continue
			}
			before, emitted := tx.writes, len(tx.emitted)
			if err := tx.run(r.fn); err != nil {
				errs[i] = err
				if tx.writes != before {
					spoilt = i
					break
				}
				tx.emitted = tx.emitted[:emitted]
			}
		}
		if spoilt >= 0 {
			err := explain(errors.Join(errs[spoilt], tx.rollback()))
			if errors.Is(err, ErrFull) {
				db.full.Store(true)
			}
			batch[spoilt].answer <- err
			batch = append(batch[:spoilt:spoilt], batch[spoilt+1:]...)
			continue
		}
		var err error
		if tx.writes > 0 {
			if err = tx.post(); err == nil {
				err = tx.control("COMMIT")
			}
			if err != nil {
				_ = tx.rollback() // best effort: the commit's error is the one to tell
			}
			db.full.Store(errors.Is(explain(err), ErrFull))
		} else {
			err = tx.rollback()
		}
		if err == nil && len(tx.emitted) > 0 {
			db.seq = tx.emitted[len(tx.emitted)-1].Seq
			db.onCommit(tx.emitted)
		}
		for i, r := range batch {
			if errs[i] == nil {
				errs[i] = err
			}
			r.answer <- explain(errs[i])
		}
		return
	}
}

// Room says whether there is room to write: ErrFull if the last commit found none,
// and there still is none.
func (db *DB) Room(ctx context.Context) error {
	if !db.full.Load() {
		return nil
	}
	err := db.Write(ctx, func(tx *Tx) error { return tx.SetMark("probe", Mark{At: time.UnixMilli(0)}, time.UnixMilli(0)) })
	if !errors.Is(err, ErrFull) {
		return nil
	}
	return ErrFull
}

// explain makes a full disk recognisable.
func explain(err error) error {
	if err != nil && (strings.Contains(err.Error(), "database or disk is full") || strings.Contains(err.Error(), "no space left")) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// Query reads what is committed. The caller closes the rows. The text of a query
// is compiled once: values belong into args.
func (db *DB) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	s, err := db.prepared(query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}

// QueryRow reads one committed row. Once the query has begun it is not given up when
// ctx ends: to watch for that would cost two goroutines, more than a row does.
func (db *DB) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	if ctx.Err() == nil {
		ctx = context.WithoutCancel(ctx)
	}
	s, err := db.prepared(query)
	if err != nil {
		return db.read.QueryRowContext(ctx, rebind(query), args...) // fails in the same way, when scanned
	}
	return s.QueryRowContext(ctx, args...)
}

func (db *DB) prepared(query string) (*sql.Stmt, error) {
	if s, ok := db.reads.Load(query); ok {
		return s.(*sql.Stmt), nil
	}
	s, err := db.read.PrepareContext(context.Background(), rebind(query))
	if err != nil {
		return nil, err
	}
	if old, twice := db.reads.LoadOrStore(query, s); twice {
		s.Close()
		return old.(*sql.Stmt), nil
	}
	return s, nil
}

// Close waits for the batch that is being written, and closes the files.
func (db *DB) Close() error {
	var err error
	db.closing.Do(func() {
		close(db.quit)
		<-db.done
		for _, s := range db.stmts {
			s.Close()
		}
		db.reads.Range(func(_, s any) bool {
			s.(*sql.Stmt).Close()
			return true
		})
		err = errors.Join(db.conn.Close(), db.read.Close(), db.write.Close())
	})
	return err
}
