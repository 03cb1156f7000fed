// Package ident holds the names things are known by in every room. Each is a
// type of its own, so that a job cannot be passed where a worker is meant.
package ident

import (
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"strings"
	"sync"
	"time"
)

// The names. Each is an opaque string of at most [MaxLen] bytes.
type (
	Tenant     string // whose: it comes from the token, never from a body
	Pipeline   string
	Run        string // one run of a pipeline
	Job        string
	Step       string // one step of a job, the same in every attempt
	Exec       string // one execution of a step: a step, an attempt, a try
	Worker     string
	Node       string
	Offer      string
	Assignment string // a job's place for one attempt
	Event      string
	Decision   string // one answer to «may I?»
	Alert      string
)

// MaxLen is the greatest length of a name, in bytes.
const MaxLen = 128

// Valid says whether s can be a name: letters, digits, '.', '_' and '-', the
// first one a letter or a digit, at most [MaxLen] of them. A name is therefore
// safe in a path, a subject and a URL without escaping.
func Valid(s string) bool {
	if s == "" || len(s) > MaxLen || strings.Contains(s, "..") {
		return false
	}
	for i, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return true
}

// Check returns an error unless s is a [Valid] name of a thing of this kind.
// The name itself is not repeated in the error.
func Check(kind, s string) error {
	if Valid(s) {
		return nil
	}
	return fmt.Errorf("%s: want 1 to %d letters, digits, '.', '_' or '-', beginning with a letter or digit", kind, MaxLen)
}

// A Source makes new names: New("job") is a name that has not been given before,
// and that sorts after those made in earlier milliseconds.
type Source func(prefix string) string

// letters are Crockford's base 32 in lower case: they sort as the bytes do.
var letters = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// NewSource returns a Source that takes the time from now and randomness from
// the system. A name is its prefix, 48 bits of milliseconds and 80 random bits,
// laid out as UUIDv7 and ULID do.
func NewSource(now func() time.Time) Source {
	var (
		mu  sync.Mutex
		buf [10 * 64]byte // a system call fetches randomness for 64 names
		off = len(buf)
	)
	return func(prefix string) string {
		var b [16]byte
		ms := uint64(now().UnixMilli())
		for i := range 6 {
			b[i] = byte(ms >> (40 - 8*i))
		}
		mu.Lock()
		if off == len(buf) {
			rand.Read(buf[:]) // never fails: see crypto/rand
			off = 0
		}
		copy(b[6:], buf[off:off+10])
		off += 10
		mu.Unlock()
		return prefix + "_" + letters.EncodeToString(b[:])
	}
}
