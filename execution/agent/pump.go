package agent

import (
	"bytes"
	"fmt"
	"io"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/logframe"
	"fragua.dev/fragua/internal/mask"
)

const readSize = 256 << 10 // of one read from a step

// pump takes what a step prints on one stream into the spool, in frames of whole
// lines, and returns how much that was. It never waits for anyone but the step.
func pump(r io.Reader, to *spool, stream logframe.Stream, m *mask.Masker) (size agentapi.LogSize) {
	l := lines{to: to, stream: stream}
	buf := make([]byte, 4<<10)
	var clean []byte
	for {
		n, err := r.Read(buf)
		clean = m.Mask(clean[:0], buf[:n])
		l.write(clean)
		if n == len(buf) && n < readSize { // it prints a lot: read more at a time
			buf = make([]byte, min(4*n, readSize))
		}
		if err != nil { // its end, or it was cut off: either way nothing follows
			break
		}
	}
	l.write(m.Flush(clean[:0]))
	l.end()
	return l.size
}

// lines gathers bytes into lines.
type lines struct {
	to     *spool
	stream logframe.Stream
	size   agentapi.LogSize
	part   []byte // of a line that has not ended
	cut    int64  // bytes of it that were left out
}

func (l *lines) write(p []byte) {
	for len(p) > 0 {
		if len(l.part) > 0 || l.cut > 0 { // a line goes on
			i := bytes.IndexByte(p, '\n')
			if i < 0 {
				l.hold(p)
				return
			}
			l.hold(p[:i])
			l.endLine()
			p = p[i+1:]
			continue
		}
		last := bytes.LastIndexByte(p, '\n')
		if last < 0 {
			l.hold(p)
			return
		}
		l.whole(p[:last+1])
		p = p[last+1:]
	}
}

// hold keeps a part of a line, as far as a line may be long.
func (l *lines) hold(p []byte) {
	room := agentapi.MaxLine - len(l.part)
	if len(p) > room {
		l.cut += int64(len(p) - room)
		p = p[:room]
	}
	l.part = append(l.part, p...)
}

// endLine ends the line that part holds.
func (l *lines) endLine() {
	l.whole(append(l.part, '\n'))
	if l.cut > 0 {
		l.to.mark(fmt.Sprintf("%d bytes of this line are cut", l.cut))
	}
	if cap(l.part) > 64<<10 {
		l.part = nil
	}
	l.part, l.cut = l.part[:0], 0
}

// whole adds lines.
func (l *lines) whole(p []byte) {
	l.size.Lines += int64(bytes.Count(p, []byte{'\n'}))
	l.size.Bytes += int64(len(p))
	l.to.add(l.stream, p)
}

// end adds what follows the last line feed.
func (l *lines) end() {
	if len(l.part) == 0 && l.cut == 0 {
		return
	}
	l.endLine()
}
