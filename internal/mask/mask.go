// Package mask hides secrets in a stream of bytes: also where they lie across the
// border of two writes, span lines, or appear in base64, hexadecimal, URL, XML or JSON
// encoding or in the quotes of a language, folded into lines or not. It hides what it
// knows: a secret that a program takes apart, encrypts or compresses passes.
package mask

import (
	"cmp"
	"slices"
)

// MinLen is the length, in bytes, from which on a secret is hidden. A shorter one
// is not: it would turn half of any log into stars, and show by that what it is.
const MinLen = 4

// Stars is what stands in the place of a secret.
const Stars = "***"

// Set is a set of secrets, ready to be looked for. It may be shared.
type Set struct {
	pairs   [1 << 16 / 64]uint64 // the first two bytes of all needles, as bits
	byFirst [256][]needle        // longest first
}

// New returns the set of secrets in all their forms, or nil when there is nothing
// to hide.
func New(secrets []string) *Set {
	all := map[needle]bool{}
	for _, s := range secrets {
		for _, n := range formsOf(s) {
			all[n] = true
		}
	}
	if len(all) == 0 {
		return nil
	}
	set := &Set{}
	for n := range all {
		first := n.text[0]
		set.byFirst[first] = append(set.byFirst[first], n)
		set.mark(first, n.text[1])
		if n.folds {
			set.mark(first, '\n')
			set.mark(first, '\r')
		}
		if n.escapes {
			set.mark(first, lower(n.text[1]))
		}
	}
	for i := range set.byFirst {
		slices.SortFunc(set.byFirst[i], func(a, b needle) int { return cmp.Compare(len(b.text), len(a.text)) })
	}
	return set
}

func (s *Set) mark(a, b byte) {
	i := uint(a)<<8 | uint(b)
	s.pairs[i/64] |= 1 << (i % 64)
}

// next returns the first place from i on where a needle may begin, or len(b).
func (s *Set) next(b []byte, i int) int {
	if i >= len(b) {
		return len(b)
	}
	high := uint(b[i]) << 8
	for j, c := range b[i+1:] {
		pair := high | uint(c)
		if s.pairs[pair/64]&(1<<(pair%64)) != 0 {
			return i + j
		}
		high = uint(c) << 8
	}
	if last := len(b) - 1; len(s.byFirst[b[last]]) > 0 {
		return last
	}
	return len(b)
}

// match returns the length of the needle that b begins with, or 0. When b is not
// long enough to tell, and more may follow, open is true.
func (s *Set) match(b []byte, last bool) (n int, open bool) {
	for _, w := range s.byFirst[b[0]] {
		// Most forms of a secret begin alike, and a log is most often not one of them.
		if end := len(w.text) - 1; end < len(b) && !w.folds && lower(b[end]) != lower(w.text[end]) {
			continue
		}
		n, short := w.length(b)
		if n > 0 || short && !last {
			return n, n == 0
		}
	}
	return 0, false
}

// lower returns c as a small letter, if it is a capital of ASCII.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// length returns how many bytes at the start of b are w, or 0; short is true when b
// ends before that is decided.
func (w needle) length(b []byte) (n int, short bool) {
	i := 0
	for _, c := range b {
		switch {
		case c == w.text[i], w.escapes && lower(c) == lower(w.text[i]) && inEscape(w.text, i):
			i++
		case !w.folds || c != '\n' && c != '\r':
			return 0, false
		}
		n++
		if i == len(w.text) {
			return n, false
		}
		if n > 2*len(w.text) { // more breaks than any folding has
			return 0, false
		}
	}
	return 0, true
}

// Masker hides the secrets of a set in one stream.
type Masker struct {
	set  *Set
	held []byte // the end of what was written, which may be the start of a secret
}

// NewMasker returns a masker of a stream; set may be nil.
func NewMasker(set *Set) *Masker { return &Masker{set: set} }

// Mask appends to dst what is known to be no secret of all that was written, p
// included, and returns it. It holds back no more than may be the start of a secret.
func (m *Masker) Mask(dst, p []byte) []byte {
	if m.set == nil {
		return append(dst, p...)
	}
	if len(m.held) == 0 {
		dst, rest := m.drain(dst, p, false)
		m.held = append(m.held, rest...)
		return dst
	}
	m.held = append(m.held, p...)
	dst, rest := m.drain(dst, m.held, false)
	m.held = m.held[:copy(m.held, rest)]
	return dst
}

// Flush appends what is still held back: nothing follows.
func (m *Masker) Flush(dst []byte) []byte {
	if len(m.held) > 0 {
		dst, _ = m.drain(dst, m.held, true)
		m.held = m.held[:0]
	}
	return dst
}

// drain appends what is decided of b to dst, and returns what is not.
func (m *Masker) drain(dst, b []byte, last bool) (out, rest []byte) {
	from := 0
	for i := m.set.next(b, 0); i < len(b); {
		n, open := m.set.match(b[i:], last)
		switch {
		case open:
			return append(dst, b[from:i]...), b[i:]
		case n > 0:
			dst = append(append(dst, b[from:i]...), Stars...)
			i += n
			from = i
		default:
			i++
		}
		i = m.set.next(b, i)
	}
	return append(dst, b[from:]...), nil
}
