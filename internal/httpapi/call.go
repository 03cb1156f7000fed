package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"

	"fragua.dev/fragua/contract/event"
)

// call is what is known of a request besides its principal.
type call struct {
	correlation string
	trace       string
	log         *slog.Logger
	permits     []permit // what Gate.Ask allowed; the handler's goroutine's alone
}

type callKey struct{}

func of(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

func log(ctx context.Context) *slog.Logger {
	if c := of(ctx); c != nil && c.log != nil {
		return c.log
	}
	return slog.Default()
}

// Correlation returns the name that everything said because of this request
// bears: the caller's own, or a new one. Outside a request it is that of the event
// that another room follows, or empty.
func Correlation(ctx context.Context) string {
	if c := of(ctx); c != nil {
		return c.correlation
	}
	return event.CauseOf(ctx).Correlation
}

// TraceParent returns the W3C trace context of this request: the caller's, or
// the start of a new trace. Outside a request it is that of the event that another
// room follows, or empty.
func TraceParent(ctx context.Context) string {
	if c := of(ctx); c != nil {
		return c.trace
	}
	return event.CauseOf(ctx).TraceParent
}

// NewTrace returns a trace context that begins here, sampled.
func NewTrace() string {
	var b [24]byte
	rand.Read(b[:]) // never fails: see crypto/rand
	out := make([]byte, 55)
	copy(out, "00-")
	hex.Encode(out[3:35], b[:16])
	out[35] = '-'
	hex.Encode(out[36:52], b[16:])
	copy(out[52:], "-01")
	return string(out)
}

// validTrace says whether s is a traceparent of version 00.
func validTrace(s string) bool {
	if len(s) != 55 || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return false
	}
	return lowerHex(s[3:35]) && lowerHex(s[36:52]) && lowerHex(s[53:]) &&
		s[3:35] != "00000000000000000000000000000000" && s[36:52] != "0000000000000000"
}

func lowerHex(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}
