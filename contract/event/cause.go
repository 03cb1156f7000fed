package event

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"fragua.dev/fragua/contract/ident"
)

// A Cause is what a fact follows from: who asked, and the trace it is a part of.
type Cause struct{ Correlation, TraceParent string }

type causeKey struct{}

// Because returns a context in which what is done follows from c. Rooms that one
// room asks for something find it by [CauseOf].
func Because(ctx context.Context, c Cause) context.Context {
	return context.WithValue(ctx, causeKey{}, c)
}

// CauseOf returns what [Because] said, if it did.
func CauseOf(ctx context.Context) Cause {
	c, _ := ctx.Value(causeKey{}).(Cause)
	return c
}

// or fills in what c leaves open: every event bears a correlation and a trace.
// They follow from its id, so that saying it again says the same.
func (c Cause) or(id ident.Event) Cause {
	if c.Correlation != "" && c.TraceParent != "" {
		return c
	}
	sum := sha256.Sum256([]byte(id))
	if c.Correlation == "" {
		c.Correlation = "cor_" + hex.EncodeToString(sum[24:])
	}
	if c.TraceParent == "" {
		c.TraceParent = "00-" + hex.EncodeToString(sum[:16]) + "-" + hex.EncodeToString(sum[16:24]) + "-01"
	}
	return c
}
