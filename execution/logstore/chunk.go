package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"

	"fragua.dev/fragua/contract/logframe"
)

const (
	chunkRaw  = 1 << 20 // bytes of frames after which a chunk is closed
	headLen   = 4 + 4 + 4 + 8 + 8 + 8 + 8 + 4
	maxStored = chunkRaw + logframe.MaxText + logframe.HeaderLen + 1<<16
)

var (
	magic      = [4]byte{'F', 'L', 'O', 'G'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// codec compresses and decompresses; it may be shared.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newCodec() (codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(1<<20))
	if err != nil {
		return codec{}, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(64<<20))
	return codec{enc, dec}, err
}

// A chunk is a part of a log: whole frames.
type chunk struct {
	at     int64 // in the file, of its compressed bytes
	packed int
	sum    uint32
	raw    int64 // where its frames begin in the frame stream, and how many bytes they are
	size   int64
	line   int64 // the number of its first line, from 1, and how many it holds
	lines  int64
	text   int64 // where its text begins in the whole text, and how many bytes it is
	bytes  int64
	lost   bool // the file ends before it
}

// head writes a chunk's header.
func (c chunk) head() []byte {
	b := append(make([]byte, 0, headLen), magic[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(c.packed))
	b = binary.BigEndian.AppendUint32(b, c.sum)
	for _, n := range []int64{c.size, c.lines, c.bytes, c.raw} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// scan reads the headers of a file of chunks, up to where it is whole.
func scan(f *os.File) (chunks []chunk, end int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	var (
		h    [headLen]byte
		next = chunk{line: 1}
	)
	for {
		if _, err := f.ReadAt(h[:], end); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return chunks, end, err
		}
		if [4]byte(h[:4]) != magic || crc32.Checksum(h[:headLen-4], castagnoli) != binary.BigEndian.Uint32(h[headLen-4:]) {
			return chunks, end, nil
		}
		c := next
		c.at, c.packed, c.sum = end+headLen, int(binary.BigEndian.Uint32(h[4:])), binary.BigEndian.Uint32(h[8:])
		c.size, c.lines = int64(binary.BigEndian.Uint64(h[12:])), int64(binary.BigEndian.Uint64(h[20:]))
		c.bytes, c.raw = int64(binary.BigEndian.Uint64(h[28:])), int64(binary.BigEndian.Uint64(h[36:]))
		if c.at+int64(c.packed) > info.Size() || c.raw != next.raw {
			return chunks, end, nil
		}
		chunks = append(chunks, c)
		end = c.at + int64(c.packed)
		next = chunk{raw: c.raw + c.size, line: c.line + c.lines, text: c.text + c.bytes}
	}
}

// errHole says that a chunk cannot be read any more.
var errHole = errors.New("a part of the log is damaged")

// frames returns the frames of a chunk.
func (c chunk) frames(f io.ReaderAt, dec *zstd.Decoder) ([]byte, error) {
	if c.lost {
		return nil, fmt.Errorf("%w: its file ends too early", errHole)
	}
	if c.packed > maxStored || c.size > maxStored {
		return nil, errHole
	}
	packed := make([]byte, c.packed)
	if _, err := f.ReadAt(packed, c.at); err != nil {
		return nil, fmt.Errorf("%w: %w", errHole, err)
	}
	if crc32.Checksum(packed, castagnoli) != c.sum {
		return nil, fmt.Errorf("%w: its checksum is wrong", errHole)
	}
	raw, err := dec.DecodeAll(packed, make([]byte, 0, c.size))
	if err != nil || int64(len(raw)) != c.size {
		return nil, fmt.Errorf("%w: %w", errHole, err)
	}
	return raw, nil
}

// measure counts the lines and the text of frames.
func measure(frames []byte) (lines, bytes int64) {
	for len(frames) > 0 {
		f, rest, err := logframe.Parse(frames)
		if err != nil {
			return lines, bytes
		}
		lines += f.Lines()
		bytes += int64(len(f.Text))
		frames = rest
	}
	return lines, bytes
}
