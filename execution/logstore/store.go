package logstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/sqldb"
)

//go:embed schema/*.sql
var schemaFiles embed.FS

// Schema holds the migrations of the tables that the store keeps in its room's
// database.
var Schema = func() fs.FS {
	sub, err := fs.Sub(schemaFiles, "schema")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}()

// Config is what a Store is made of.
type Config struct {
	DB  *sqldb.DB // of the room; it holds Schema
	Dir string    // for the files of long logs
	Now func() time.Time
}

// Store keeps logs.
type Store struct {
	cfg  Config
	code codec
	seen *cache
	read chan struct{} // a place for each reader
	mu   sync.Mutex
	live map[key]*Writer
}

// newLog returns a log that is empty; what is over is not written any more.
func (s *Store) newLog(k key, over bool) *log {
	return &log{name: k, dec: s.code.dec, cache: s.seen, over: over, grown: make(chan struct{}), users: 1}
}

// Reader asks for leave to [Store.Serve] one reader; the caller calls done when
// that is over. ok is false when there are too many.
func (s *Store) Reader() (done func(), ok bool) {
	select {
	case s.read <- struct{}{}:
		return func() { <-s.read }, true
	default:
		return nil, false
	}
}

type key struct {
	tenant ident.Tenant
	exec   ident.Exec
}

// Open returns the store in a folder, which it makes.
func Open(cfg Config) (*Store, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("logstore: %w", err)
	}
	code, err := newCodec()
	if err != nil {
		return nil, fmt.Errorf("logstore: %w", err)
	}
	return &Store{cfg: cfg, code: code, seen: newCache(), read: make(chan struct{}, maxReaders), live: map[key]*Writer{}}, nil
}

// Close saves what is there of the logs that are being written, and closes their files.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, w := range s.live {
		errs = append(errs, w.pack(true))
		w.log.close()
		w.log.release()
	}
	s.live = nil
	return errors.Join(errs...)
}

func (s *Store) file(t ident.Tenant, e ident.Exec) string {
	return filepath.Join(s.cfg.Dir, string(t), string(e)+".flog")
}

// Writer returns the writer of an execution's log, which goes on after what is
// durable of it already. There is one for each execution.
func (s *Store) Writer(t ident.Tenant, e ident.Exec) (*Writer, error) {
	if !ident.Valid(string(t)) || !ident.Valid(string(e)) {
		return nil, errors.New("logstore: not a name")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		return nil, errors.New("logstore: closed")
	}
	k := key{t, e}
	if w := s.live[k]; w != nil {
		return w, nil
	}
	w := &Writer{store: s, key: k, log: s.newLog(k, false)}
	f, err := os.OpenFile(s.file(t, e), os.O_RDWR, 0)
	switch {
	case err == nil:
		chunks, end, err := scan(f)
		if err == nil {
			err = f.Truncate(end)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("logstore: %w", err), f.Close())
		}
		w.log.file, w.log.chunks, w.end = f, chunks, end
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("logstore: %w", err)
	}
	s.live[k] = w
	return w, nil
}

// find returns a log for reading, an empty one if there is none; the caller
// releases it.
func (s *Store) find(ctx context.Context, t ident.Tenant, e ident.Exec) (*log, error) {
	k := key{t, e}
	s.mu.Lock()
	w := s.live[k]
	if w != nil {
		w.log.use()
	}
	s.mu.Unlock()
	if w != nil {
		return w.log, nil
	}
	var (
		info   LogInfo
		inline []byte
	)
	err := s.cfg.DB.QueryRow(ctx, `SELECT lines, bytes, inline FROM log WHERE tenant = $1 AND exec = $2`, string(t), string(e)).Scan(&info.Lines, &info.Bytes, &inline)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return s.newLog(k, true), nil
	case err != nil:
		return nil, fmt.Errorf("logstore: %w", err)
	case inline != nil:
		raw, err := s.code.dec.DecodeAll(inline, nil)
		if err != nil {
			return nil, fmt.Errorf("logstore: %w", err)
		}
		l := s.newLog(k, true)
		l.tail = raw
		return l, nil
	}
	f, err := os.Open(s.file(t, e))
	if err != nil {
		return nil, fmt.Errorf("logstore: %w", err)
	}
	chunks, _, err := scan(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("logstore: %w", err), f.Close())
	}
	l := s.newLog(k, true)
	l.file, l.chunks = f, chunks
	l.expect(info)
	return l, nil
}
