package logstore

import (
	"bufio"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"fragua.dev/fragua/contract/logframe"
	"fragua.dev/fragua/internal/sqldb"
)

const (
	inlineMax  = 16 << 10 // bytes of frames that a row holds
	syncEvery  = time.Second
	flushAfter = 64 << 10        // bytes of frames that are shown at once while a lot is printed
	saveEvery  = 5 * time.Second // what a slow step prints: it may be all that is left when its worker ends together with this process
)

// A LogInfo counts a log.
type LogInfo struct {
	Lines, Bytes int64 // of text
}

// A Writer writes one log. Its methods are called one after the other.
type Writer struct {
	store  *Store
	key    key
	log    *log
	marked bool // the last line says that it is not whole

	mu     sync.Mutex // held by who packs
	end    int64      // of the file
	synced time.Time
}

// Offset returns how many bytes of the frame stream the store has: where to go on
// after a failure.
func (w *Writer) Offset() int64 {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	return w.log.next().raw + int64(len(w.log.tail))
}

// Copy takes frames from r until its end. They are those that follow Offset.
func (w *Writer) Copy(ctx context.Context, r io.Reader) error {
	defer w.saveNowAndThen()()
	in := bufio.NewReaderSize(r, flushAfter)
	frames := logframe.NewReader(in)
	var batch []byte
	show := func() {
		if len(batch) > 0 {
			w.log.add(batch)
			batch = batch[:0]
		}
	}
	for {
		f, err := frames.Next()
		if err == io.EOF { //nolint:errorlint // a wrapped one is no end: the stream broke off
			show()
			return nil
		}
		if err != nil {
			show()
			return fmt.Errorf("logstore: %w", err)
		}
		batch = logframe.Append(batch, f)
		if len(batch) >= flushAfter || in.Buffered() == 0 {
			show()
		}
		if w.log.pending() >= chunkRaw {
			if err := w.pack(false); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// saveNowAndThen packs what came until it is stopped. When that fails, as on a full
// disk, what follows takes it along.
func (w *Writer) saveNowAndThen() (stop func()) {
	var (
		mu   sync.Mutex
		over bool
		t    *time.Timer
	)
	mu.Lock()
	defer mu.Unlock()
	t = time.AfterFunc(saveEvery, func() {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			_ = w.pack(false)
			t.Reset(saveEvery)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		t.Stop()
	}
}

// pack writes what is in memory as a chunk; durable does not return before it is.
func (w *Writer) pack(durable bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.log
	l.mu.Lock()
	tail, file := l.tail, l.file
	next := l.next()
	l.mu.Unlock()
	if len(tail) > 0 {
		if file == nil {
			name := w.store.file(w.key.tenant, w.key.exec)
			if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
				return fmt.Errorf("logstore: %w", err)
			}
			var err error
			if file, err = os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600); err != nil {
				return fmt.Errorf("logstore: %w", err)
			}
		}
		packed := w.store.code.enc.EncodeAll(tail, make([]byte, 0, len(tail)/4))
		next.at, next.packed, next.sum, next.size = w.end+headLen, len(packed), crc32.Checksum(packed, castagnoli), int64(len(tail))
		next.lines, next.bytes = measure(tail)
		if _, err := file.WriteAt(append(next.head(), packed...), w.end); err != nil {
			return fmt.Errorf("logstore: %w", err)
		}
		w.end = next.at + int64(next.packed)
		l.mu.Lock()
		l.file, l.tail = file, l.tail[len(tail):]
		if len(l.tail) == 0 {
			l.tail = nil
		}
		l.chunks = append(l.chunks, next)
		l.mu.Unlock()
	}
	if file == nil || !durable && time.Since(w.synced) < syncEvery {
		return nil
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("logstore: %w", err)
	}
	w.synced = time.Now()
	return nil
}

// Finish ends the log, and returns what its row needs: the caller runs it in the
// transaction that saves the execution's end. A log that is not whole says so in
// its last line. When it fails, as on a full disk, it may be called again.
func (w *Writer) Finish(whole bool) (func(tx *sqldb.Tx) error, LogInfo, error) {
	l := w.log
	if !whole && !w.marked {
		w.marked = true
		l.add(logframe.Append(nil, logframe.Frame{
			Stream: logframe.Mark, Time: w.store.cfg.Now(), Text: []byte("… the log ends here: its worker was lost\n"),
		}))
	}
	l.mu.Lock()
	tail, short := l.tail, l.file == nil && len(l.tail) <= inlineMax
	l.mu.Unlock()
	var inline []byte
	if short {
		if len(tail) > 0 {
			inline = w.store.code.enc.EncodeAll(tail, nil)
		}
	} else if err := w.pack(true); err != nil {
		return nil, LogInfo{}, err
	}
	end := l.close()
	info := LogInfo{end.line - 1, end.text}
	if info.Bytes == 0 {
		w.close()
		return func(*sqldb.Tx) error { return nil }, info, nil
	}
	return func(tx *sqldb.Tx) error {
		_, err := tx.Exec(`INSERT INTO log (tenant, exec, lines, bytes, inline) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (tenant, exec) DO UPDATE SET lines = excluded.lines, bytes = excluded.bytes, inline = excluded.inline`,
			string(w.key.tenant), string(w.key.exec), info.Lines, info.Bytes, inline)
		return err
	}, info, nil
}

// Release lets go of a log that was finished, once its row is saved.
func (w *Writer) Release() { w.close() }

// close takes the log off the list of those that are written. Readers that follow
// it read to its end.
func (w *Writer) close() {
	w.log.close()
	w.store.mu.Lock()
	mine := w.store.live[w.key] == w
	if mine {
		delete(w.store.live, w.key)
	}
	w.store.mu.Unlock()
	if mine {
		w.log.release()
	}
}
