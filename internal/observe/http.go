package observe

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
)

// SpanServer is the service of the spans that a request begins.
const SpanServer = "api"

// request is what is learnt of a request further in, and told on the way out.
type request struct {
	route  string
	tenant ident.Tenant
}

type requestKey struct{}

// Middleware counts and times what next answers, and begins a span for it, which
// continues the caller's trace. The request that next sees names that span as its
// traceparent. Next should pass through [Observe.Route]; without it the route and
// the tenant stay unknown.
func (o *Observe) Middleware(next http.Handler) http.Handler {
	if o == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := o.cfg.Now()
		req := &request{}
		ctx := context.WithValue(r.Context(), requestKey{}, req)
		ctx = scope{observe: o}.in(ctx)
		if h := r.Header["Traceparent"]; len(h) == 1 {
			ctx = FromTraceParent(ctx, h[0])
		}
		method := methodName(r.Method)
		end := func(error) {}
		if traced(r.URL.Path) {
			ctx, end = start(ctx, "", "", SpanServer, method, nil)
		}
		r = r.WithContext(ctx)
		if own := TraceParent(ctx); own != "" {
			r.Header = maps.Clone(r.Header)
			r.Header["Traceparent"] = []string{own}
		}
		out := &recorder{ResponseWriter: w}
		o.metrics.inFlight.Inc()
		defer func() { // also of a handler that panics, to break off its answer
			o.metrics.inFlight.Dec()
			took := o.cfg.Now().Sub(began)
			if out.stream() {
				took = 0 // how long someone listened says nothing of how fast this is
			}
			o.metrics.Request(method, req.route, out.code(), took)
			span := trace.SpanFromContext(ctx)
			span.SetName(strings.TrimSpace(method + " " + req.route))
			span.SetAttributes(attribute.String("http.request.method", method), attribute.String("http.route", req.route),
				attribute.String("http.response.status_code", strconv.Itoa(out.code())), attribute.String(attrTenant, string(req.tenant)))
			var err error
			if out.code() >= http.StatusInternalServerError {
				err = errors.New(http.StatusText(out.code()))
			}
			end(err)
		}()
		next.ServeHTTP(out, r)
	})
}

// Route tells [Observe.Middleware] whose a request is, and which route took it.
// It stands where both are known: between whoever verifies the token and the mux.
func (o *Observe) Route(mux http.Handler) http.Handler {
	if o == nil {
		return mux
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, _ := r.Context().Value(requestKey{}).(*request)
		if req == nil {
			mux.ServeHTTP(w, r)
			return
		}
		req.tenant = authz.From(r.Context()).Tenant
		defer func() { // the mux writes the pattern into r
			_, path, found := strings.Cut(r.Pattern, " ")
			if !found {
				path = r.Pattern
			}
			req.route = path
		}()
		mux.ServeHTTP(w, r)
	})
}

// traced says whether a request is worth a span: not those that monitors send
// every few seconds.
func traced(path string) bool {
	return path != "/healthz" && path != "/readyz" && path != "/metrics"
}

// methodName keeps made-up methods from becoming names of series.
func methodName(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "OTHER"
}

// recorder remembers an answer's status.
type recorder struct {
	http.ResponseWriter
	status int
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// ReadFrom lets a file go to the connection without passing through this process.
func (w *recorder) ReadFrom(r io.Reader) (int64, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return io.Copy(w.ResponseWriter, r)
}

// Flush sends what is written so far.
func (w *recorder) Flush() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush() // a writer that cannot flush does not hold back either
}

// Hijack takes the connection over.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

func (w *recorder) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}

func (w *recorder) stream() bool {
	return strings.HasPrefix(w.Header().Get("Content-Type"), "text/event-stream")
}
