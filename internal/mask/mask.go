// Package mask hides secrets in a stream of bytes: also where they lie across the
// border of two writes, span lines, or appear in base64, hexadecimal or URL
// encoding.
package mask

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
)

// MinLen is the length, in bytes, from which on a secret is hidden: a shorter one
// would turn half of any log into stars.
const MinLen = 4

// Stars is what stands in the place of a secret.
const Stars = "***"

// Set is a set of secrets, ready to be looked for. It may be shared.
type Set struct {
	byFirst [256][][]byte // longest first
	longest int
}

// New returns the set of secrets in all their encodings, or nil when there is
// nothing to hide.
func New(secrets []string) *Set {
	needles := map[string]bool{}
	add := func(s string) {
		if len(s) >= MinLen {
			needles[s] = true
		}
	}
	for _, s := range secrets {
		if len(s) < MinLen {
			continue
		}
		for _, form := range []string{s, strings.TrimSpace(s)} {
			add(form)
			add(url.QueryEscape(form))
			add(url.PathEscape(form))
			add(hex.EncodeToString([]byte(form)))
			add(strings.ToUpper(hex.EncodeToString([]byte(form))))
			for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				for shift := range 3 {
					add(inner(e, form, shift))
				}
			}
		}
		for line := range strings.Lines(s) { // a tool may print the lines of a key one by one
			if line = strings.TrimSpace(line); len(line) >= 2*MinLen {
				add(line)
			}
		}
	}
	if len(needles) == 0 {
		return nil
	}
	set := &Set{}
	for n := range needles {
		set.byFirst[n[0]] = append(set.byFirst[n[0]], []byte(n))
		set.longest = max(set.longest, len(n))
	}
	for i := range set.byFirst {
		slices.SortFunc(set.byFirst[i], func(a, b []byte) int { return cmp.Compare(len(b), len(a)) })
	}
	return set
}

// inner returns the part of s's base64 that is the same wherever s begins shift
// bytes into a group of three, whatever stands around it.
func inner(e *base64.Encoding, s string, shift int) string {
	enc := e.EncodeToString([]byte(strings.Repeat("x", shift) + s))
	from := (shift*8 + 5) / 6
	to := (shift + len(s)) * 8 / 6
	if from >= to || to-from < 2*MinLen {
		return ""
	}
	return enc[from:to]
}

// match returns the length of the secret that b begins with, or 0.
func (s *Set) match(b []byte) int {
	for _, n := range s.byFirst[b[0]] {
		if bytes.HasPrefix(b, n) {
			return len(n)
		}
	}
	return 0
}

// Masker hides the secrets of a set in one stream.
type Masker struct {
	set  *Set
	held []byte // the end of what was written, which may be the start of a secret
}

// NewMasker returns a masker of a stream; set may be nil.
func NewMasker(set *Set) *Masker { return &Masker{set: set} }

// Mask appends to dst what is known to be no secret of all that was written, p
// included, and returns it.
func (m *Masker) Mask(dst, p []byte) []byte {
	if m.set == nil {
		return append(dst, p...)
	}
	m.held = append(m.held, p...)
	return m.drain(dst, m.set.longest-1)
}

// Flush appends what is still held back.
func (m *Masker) Flush(dst []byte) []byte {
	if m.set == nil {
		return dst
	}
	return m.drain(dst, 0)
}

// drain moves what is decided from held to dst: all but the last keep bytes.
func (m *Masker) drain(dst []byte, keep int) []byte {
	b := m.held
	i, from := 0, 0
	for i < len(b)-keep {
		if len(m.set.byFirst[b[i]]) == 0 {
			i++
			continue
		}
		n := m.set.match(b[i:])
		if n == 0 {
			i++
			continue
		}
		dst = append(append(dst, b[from:i]...), Stars...)
		i += n
		from = i
	}
	i = max(i, from)
	dst = append(dst, b[from:i]...)
	m.held = append(m.held[:0], b[i:]...)
	return dst
}
