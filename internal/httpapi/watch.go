package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"fragua.dev/fragua/contract/authz"
)

// watch returns a context that ends when the token of a stream is good no more, as when
// it was revoked or has expired; over, which the caller calls at the stream's end, says
// whether that was why.
func (h *handler) watch(ctx context.Context, head http.Header) (_ context.Context, over func() bool) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		t := time.NewTicker(h.Recheck)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-ctx.Done():
				return
			}
			if _, err := h.who(ctx, head); errors.Is(err, authz.ErrBadToken) {
				cancel(err)
				return
			}
		}
	}()
	return ctx, func() bool {
		cancel(nil)
		return errors.Is(context.Cause(ctx), authz.ErrBadToken)
	}
}
