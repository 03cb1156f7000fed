// Package logframe is how a step's output travels and is stored: a stream of
// frames, each with lines of one of its two streams that came at one time.
//
//	1 byte   stream: 1 stdout, 2 stderr, 3 the platform's own marks
//	8 bytes  time, nanoseconds since 1970, big endian
//	4 bytes  length of the text, big endian, at most MaxText
//	n bytes  text: whole lines, each with its line feed; only the last frame of
//	         an execution may end without one
//
// Lines are numbered from 1 in the order of the stream, over all streams.
package logframe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// A Stream says where a line comes from.
type Stream byte

// The streams.
const (
	Stdout Stream = 1
	Stderr Stream = 2
	Mark   Stream = 3 // what the platform says within a log: what was cut, what is missing
)

// String returns stdout, stderr or fragua.
func (s Stream) String() string {
	switch s {
	case Stdout:
		return "stdout"
	case Stderr:
		return "stderr"
	default:
		return "fragua"
	}
}

// Sizes, in bytes.
const (
	HeaderLen = 13
	MaxText   = 2 << 20 // of one frame
)

// A Frame is some lines of one stream.
type Frame struct {
	Stream Stream
	Time   time.Time
	Text   []byte
}

// Lines returns how many lines f holds; one without its line feed counts too.
func (f Frame) Lines() int64 {
	n := int64(bytes.Count(f.Text, []byte{'\n'}))
	if len(f.Text) > 0 && f.Text[len(f.Text)-1] != '\n' {
		n++
	}
	return n
}

// Append appends f as bytes to b.
func Append(b []byte, f Frame) []byte {
	b = append(b, byte(f.Stream))
	b = binary.BigEndian.AppendUint64(b, uint64(f.Time.UnixNano()))
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.Text)))
	return append(b, f.Text...)
}

// ErrCorrupt is wrapped by what Next and Parse return for bytes that are no frame.
var ErrCorrupt = errors.New("not a log frame")

func header(h []byte) (Frame, int, error) {
	s := Stream(h[0])
	n := int(binary.BigEndian.Uint32(h[9:13]))
	if s < Stdout || s > Mark || n > MaxText {
		return Frame{}, 0, fmt.Errorf("%w: stream %d, %d bytes", ErrCorrupt, s, n)
	}
	return Frame{Stream: s, Time: time.Unix(0, int64(binary.BigEndian.Uint64(h[1:9]))).UTC()}, n, nil
}

// Parse returns the first frame of b and what follows it. The text is b's own
// memory. io.ErrUnexpectedEOF means that b ends within the frame, io.EOF that b
// is empty.
func Parse(b []byte) (f Frame, rest []byte, err error) {
	if len(b) == 0 {
		return Frame{}, nil, io.EOF
	}
	if len(b) < HeaderLen {
		return Frame{}, b, io.ErrUnexpectedEOF
	}
	f, n, err := header(b)
	if err != nil {
		return Frame{}, b, err
	}
	if len(b) < HeaderLen+n {
		return Frame{}, b, io.ErrUnexpectedEOF
	}
	f.Text = b[HeaderLen : HeaderLen+n : HeaderLen+n]
	return f, b[HeaderLen+n:], nil
}

// A Reader reads frames.
type Reader struct {
	r   io.Reader
	buf []byte
}

// NewReader returns a Reader of r, which should be buffered.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next returns the next frame. Its text is valid until the next call. At the end
// of the stream it returns io.EOF, within a frame io.ErrUnexpectedEOF.
func (r *Reader) Next() (Frame, error) {
	var h [HeaderLen]byte
	if _, err := io.ReadFull(r.r, h[:]); err != nil {
		return Frame{}, err
	}
	f, n, err := header(h[:])
	if err != nil {
		return Frame{}, err
	}
	if cap(r.buf) < n {
		r.buf = make([]byte, n)
	}
	f.Text = r.buf[:n]
	if _, err := io.ReadFull(r.r, f.Text); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	return f, nil
}
