package logstore

import (
	"os"
	"sort"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// log is one log as readers see it: chunks in a file, and what follows them in
// memory.
type log struct {
	name   key
	dec    *zstd.Decoder
	cache  *cache
	mu     sync.Mutex
	file   *os.File
	chunks []chunk
	tail   []byte // frames after the last chunk
	over   bool   // nothing follows
	grown  chan struct{}
	users  int // who keeps the file open
}

func (l *log) use() *log {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users++
	return l
}

// release closes the file when nobody uses it any more.
func (l *log) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users--; l.users == 0 && l.file != nil {
		l.file.Close() // it was read, or synced, before
	}
}

// next returns the chunk that would follow the last one.
func (l *log) next() chunk {
	if n := len(l.chunks); n > 0 {
		c := l.chunks[n-1]
		return chunk{raw: c.raw + c.size, line: c.line + c.lines, text: c.text + c.bytes}
	}
	return chunk{line: 1}
}

// expect has the log be as long as its row says: what its file lacks is a hole.
func (l *log) expect(info LogInfo) {
	c := l.next()
	c.lines, c.bytes, c.lost = info.Lines+1-c.line, info.Bytes-c.text, true
	if c.lines > 0 && c.bytes > 0 {
		l.chunks = append(l.chunks, c)
	}
}

// add appends frames, and shows them.
func (l *log) add(frames []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = append(l.tail, frames...)
	close(l.grown)
	l.grown = make(chan struct{})
}

func (l *log) pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.tail)
}

// close says that nothing follows, and returns the end.
func (l *log) close() chunk {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.over = true
		close(l.grown)
	}
	return l.tailEnd()
}

// tailEnd returns where the log ends, tail included.
func (l *log) tailEnd() chunk {
	end := l.next()
	lines, bytes := measure(l.tail)
	end.raw, end.line, end.text = end.raw+int64(len(l.tail)), end.line+lines, end.text+bytes
	return end
}

// snapshot returns where the log ends now, whether that is for good, and a channel
// that is closed when there is more.
func (l *log) snapshot() (end chunk, over bool, grown <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tailEnd(), l.over, l.grown
}

// part returns the frames of the chunk, or of the tail, that holds what key says is
// at n: a line, a byte of text. ok is false at the end.
func (l *log) part(n int64, end func(chunk) int64) (c chunk, frames []byte, ok bool, err error) {
	l.mu.Lock()
	chunks, file := l.chunks, l.file
	i := sort.Search(len(chunks), func(i int) bool { return end(chunks[i]) > n })
	if i == len(chunks) {
		c = l.next()
		frames = l.tail[:len(l.tail):len(l.tail)] // what is there is not changed any more
		l.mu.Unlock()
		c.lines, c.bytes = measure(frames)
		return c, frames, end(c) > n, nil
	}
	l.mu.Unlock()
	c = chunks[i]
	frames, err = l.cache.frames(chunkName{l.name, c.at, c.sum}, func() ([]byte, error) { return c.frames(file, l.dec) })
	return c, frames, true, err
}

func endLine(c chunk) int64 { return c.line + c.lines }
func endText(c chunk) int64 { return c.text + c.bytes }
