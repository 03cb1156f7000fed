package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Elsewhere returns an API on which a room that is in another process registers its
// operations: they are described as if it were here, and requests for them go to that
// process by way of to. So a room's own registration is the only list of its paths.
func Elsewhere(a huma.API, mux *http.ServeMux, room string, to http.RoundTripper) huma.API {
	return &elsewhere{a.(*api), mux, pass(room, to)}
}

type elsewhere struct {
	*api
	mux  *http.ServeMux
	pass http.Handler
}

// Adapter returns the way to the other process, in place of the way to a handler.
func (e *elsewhere) Adapter() huma.Adapter { return e }

// Handle has requests for op passed on; the handler could do nothing here.
func (e *elsewhere) Handle(op *huma.Operation, _ func(huma.Context)) {
	e.mux.Handle(strings.ToUpper(op.Method)+" "+op.Path, e.pass)
}

// ServeHTTP serves what is registered, as an adapter does.
func (e *elsewhere) ServeHTTP(w http.ResponseWriter, r *http.Request) { e.mux.ServeHTTP(w, r) }

type headKey struct{}

// pass hands requests on to another process, which lets them in by itself: the
// caller's token goes along. What comes back is passed on as it comes.
func pass(room string, to http.RoundTripper) http.Handler {
	proxy := &httputil.ReverseProxy{
		Transport: to, FlushInterval: -1, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "https", room
			r.Out.Header.Set("X-Correlation-Id", Correlation(r.In.Context()))
		},
		ModifyResponse: func(res *http.Response) error {
			head := res.Request.Context().Value(headKey{}).(http.Header)
			for name := range res.Header {
				delete(head, name) // the other process has said it already
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if tooLarge, is := errors.AsType[*http.MaxBytesError](err); is {
				problem(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit)).write(w)
				return
			}
			if r.Context().Err() == nil {
				log(r.Context()).LogAttrs(r.Context(), slog.LevelWarn, "a service does not answer", slog.String("service", room), slog.Any("error", err))
			}
			retry(http.StatusServiceUnavailable, time.Second, "the "+room+" service is away").write(w)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), headKey{}, w.Header())))
	})
}
