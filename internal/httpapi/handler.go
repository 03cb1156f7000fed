package httpapi

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
)

// Options say how requests are let in. Only Verifier must be given.
type Options struct {
	Verifier authz.Verifier
	Log      *slog.Logger // panics and unforeseen errors, once each

	MaxBody int64         // of a body, in bytes; 8 MiB unless given
	Timeout time.Duration // of a request that is no stream; 60 s unless given
	Recheck time.Duration // after which the token of a stream is looked at again; 5 s unless given

	// Open says which requests need no token: [OpenPath] unless given.
	Open func(*http.Request) bool
	// Stream says which requests may go on for as long as something moves:
	// [StreamPath] unless given. Only a POST or PUT among them may also have a body
	// of any size.
	Stream func(*http.Request) bool

	Now   func() time.Time
	IDs   ident.Source  // names for requests that bring no correlation id
	Trace func() string // trace contexts for requests that bring none: NewTrace unless given
}

// OpenPath says whether a request reads what everyone may read: whether the
// server lives, what its API is, and the keys of its issuer.
func OpenPath(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	switch p := r.URL.Path; p {
	case "/healthz", "/readyz", "/openapi.json", "/openapi.yaml", "/docs", "/asyncapi.json", "/asyncapi.yaml":
		return true
	default:
		return strings.HasPrefix(p, "/docs/") || strings.HasPrefix(p, "/.well-known/")
	}
}

// StreamPath says whether a request sends or receives something without end: an
// artifact, a log, the events.
func StreamPath(r *http.Request) bool {
	p := r.URL.Path
	if r.Method == http.MethodPost {
		return p == "/artifacts"
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	accept := r.Header.Get("Accept")
	return p == "/events" || strings.HasPrefix(p, "/logs/") || strings.HasSuffix(p, "/logs") ||
		strings.HasPrefix(p, "/artifacts/") && strings.HasSuffix(p, "/content") ||
		strings.HasPrefix(accept, "text/event-stream") || strings.HasPrefix(accept, "application/x-ndjson")
}

// Bounds on what a request's head may hold, in bytes.
const (
	maxPath  = 4096
	maxQuery = 16 << 10
	maxToken = 8 << 10
)

// keepTime bounds how long a decision about a refused request waits for the disk.
const keepTime = 10 * time.Second

type handler struct {
	Options
	next http.Handler
}

// Handler lets requests in to next: it reads whose they are, bounds them, and
// answers for whatever next does not answer well.
func Handler(next http.Handler, o Options) http.Handler {
	o.MaxBody = cmp.Or(o.MaxBody, 8<<20)
	o.Timeout = cmp.Or(o.Timeout, time.Minute)
	o.Recheck = cmp.Or(o.Recheck, 5*time.Second)
	if o.Open == nil {
		o.Open = OpenPath
	}
	if o.Stream == nil {
		o.Stream = StreamPath
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.IDs == nil {
		o.IDs = ident.NewSource(o.Now)
	}
	if o.Trace == nil {
		o.Trace = NewTrace
	}
	return &handler{o, next}
}

// Values of headers that every answer bears; those of one capacity are copied,
// not overwritten, by Header.Add.
var (
	nosniff  = []string{"nosniff"}
	noStore  = []string{"no-store"}
	deny     = []string{"DENY"}
	noRefer  = []string{"no-referrer"}
	sameSite = []string{"same-origin"}
	noSource = []string{"default-src 'none'; frame-ancestors 'none'"}
)

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{log: h.Log, correlation: correlation(r.Header), trace: r.Header.Get("Traceparent")}
	if c.correlation == "" {
		c.correlation = h.IDs("req")
	}
	if !validTrace(c.trace) {
		c.trace = h.Trace()
	}
	head := w.Header()
	head["X-Content-Type-Options"], head["Cache-Control"], head["X-Frame-Options"] = nosniff, noStore, deny
	head["Referrer-Policy"], head["Cross-Origin-Resource-Policy"], head["Content-Security-Policy"] = noRefer, sameSite, noSource
	head["X-Correlation-Id"] = []string{c.correlation}

	out := &writer{ResponseWriter: w}
	ctx := context.WithValue(r.Context(), callKey{}, c)
	defer h.recover(ctx, out, r)
	clock := http.NewResponseController(w)
	hasBody := r.ContentLength != 0 && r.Body != nil && r.Body != http.NoBody
	if hasBody {
		defer h.hearOut(out, r.Body, clock, r.Header.Get("Expect") != "")
	}

	if p := readable(r); p != nil {
		p.write(out)
		return
	}
	if !h.Open(r) {
		principal, err := h.who(ctx, r.Header)
		if err != nil {
			h.refuse(ctx, out, err)
			return
		}
		ctx = authz.With(ctx, principal)
	}

	stream := h.Stream(r)
	if stream {
		var over func() bool
		ctx, over = h.watch(ctx, r.Header)
		defer func() {
			if over() {
				panic(http.ErrAbortHandler) // half an answer must not look like a whole one
			}
		}()
		out.clock, out.patience = clock, patience*h.Timeout
		_ = clock.SetWriteDeadline(time.Time{}) // the request before on this connection may have left one
	} else {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, h.Timeout)
		defer cancel()
		_, until := h.bounds()
		_ = clock.SetWriteDeadline(until) // not every writer has one: tests'
	}
	if r.Method == http.MethodHead {
		ctx, out.headOnly = context.WithCancel(ctx)
		defer out.headOnly()
	}
	if hasBody {
		if p := h.body(w, r, clock, stream); p != nil {
			p.write(out)
			return
		}
	}
	defer func() {
		if out.status == 0 || out.status >= http.StatusBadRequest { // 0: it panics
			h.keep(ctx, c)
		}
	}()
	h.next.ServeHTTP(out, r.WithContext(ctx))
}

// keep commits what was decided for a request that came to nothing. What was
// committed all the same bears the same id, and is taken for a repetition.
func (h *handler) keep(ctx context.Context, c *call) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTime)
	defer cancel()
	for _, p := range c.permits {
		if err := p.keep(ctx); err != nil {
			h.Log.LogAttrs(ctx, slog.LevelError, "the audit lacks a decision about a request that was not done", slog.String("correlation", c.correlation), slog.Any("error", err))
		}
	}
}

// bounds are when the connection gives up reading and writing: after the handler's
// own deadline, which is to be found out first, and with time left to answer that.
func (h *handler) bounds() (read, write time.Time) {
	now := time.Now() // the connection's clock, not the platform's
	return now.Add(h.Timeout + h.Timeout/8), now.Add(h.Timeout + h.Timeout/4)
}

// who returns the principal that a request's token names.
func (h *handler) who(ctx context.Context, head http.Header) (authz.Principal, error) {
	values := head["Authorization"]
	if len(values) == 0 {
		return authz.Principal{}, authz.ErrNoToken
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "bearer") || token == "" || len(token) > maxToken {
		return authz.Principal{}, authz.ErrBadToken
	}
	p, err := h.Verifier.Verify(ctx, token)
	if err == nil && (p.Sub == "" || p.Tenant == "") {
		return authz.Principal{}, authz.ErrBadToken
	}
	return p, err
}

// refuse answers a request without a good token. What was wrong with the token
// is told where it is one of the errors meant to be told.
func (h *handler) refuse(ctx context.Context, w http.ResponseWriter, err error) {
	p := problem(http.StatusUnauthorized, "")
	switch {
	case errors.Is(err, authz.ErrNoToken):
		p.Detail = "send a token: Authorization: Bearer …"
		p.headers = http.Header{"Www-Authenticate": {`Bearer realm="fragua"`}}
	case errors.Is(err, authz.ErrBadToken):
		p.Detail = shorten(err.Error(), maxMessage)
		p.headers = http.Header{"Www-Authenticate": {`Bearer realm="fragua", error="invalid_token"`}}
	default:
		p = retry(http.StatusServiceUnavailable, time.Second, "tokens cannot be verified now")
		h.Log.LogAttrs(ctx, slog.LevelError, "a token could not be verified", slog.Any("error", err))
	}
	p.write(w)
}

// readable refuses what cannot be a request of this API, and mends a query whose
// names have no value.
func readable(r *http.Request) *Problem {
	u := r.URL
	switch {
	case len(u.Path) > maxPath || len(u.RawQuery) > maxQuery:
		return problem(http.StatusRequestURITooLong, "the address is too long")
	case !plain(u.Path):
		return problem(http.StatusBadRequest, "the path has bytes that are not UTF-8, or control characters")
	case u.Path == "" || u.Path[0] != '/' || !clean(u.Path):
		return problem(http.StatusNotFound, "no such path")
	case u.RawQuery == "":
		return nil
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return problem(http.StatusBadRequest, "the query cannot be read: an escape in it is broken")
	}
	for name, vs := range values {
		for _, v := range vs {
			if !plain(name) || !plain(v) {
				return problem(http.StatusBadRequest, "the query has bytes that are not UTF-8, or control characters")
			}
		}
	}
	bare := false
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		bare = bare || pair != "" && !strings.Contains(pair, "=")
	}
	if bare { // ?follow is ?follow=true
		var pairs []string
		for pair := range strings.SplitSeq(u.RawQuery, "&") {
			if pair != "" && !strings.Contains(pair, "=") {
				pair += "=true"
			}
			pairs = append(pairs, pair)
		}
		changed := *u
		changed.RawQuery = strings.Join(pairs, "&")
		r.URL = &changed
	}
	return nil
}

// plain says whether s is UTF-8 without control characters.
func plain(s string) bool {
	ascii := true
	for _, c := range []byte(s) {
		if c < ' ' || c == 0x7f {
			return false
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	return ascii || utf8.ValidString(s)
}

// clean says whether the mux would take the path as it is.
func clean(p string) bool {
	if !strings.Contains(p, "//") && !strings.Contains(p, "/.") {
		return true
	}
	c := path.Clean(p)
	return c == p || c+"/" == p
}

func correlation(head http.Header) string {
	for _, name := range []string{"X-Correlation-Id", "X-Request-Id"} {
		if v := head[name]; len(v) == 1 && ident.Valid(v[0]) {
			return v[0]
		}
	}
	return ""
}

// recover answers for a handler that panicked.
func (h *handler) recover(ctx context.Context, w *writer, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	err, _ := p.(error)
	if errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	if r.Context().Err() == nil { // else the client has gone, and a write to it failed
		h.Log.LogAttrs(ctx, slog.LevelError, "a handler panicked", slog.Any("panic", p), slog.String("method", r.Method),
			slog.String("route", r.Pattern), slog.String("correlation", Correlation(ctx)), slog.String("stack", string(debug.Stack())))
	}
	if w.status != 0 {
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	}
	problem(http.StatusInternalServerError, "something went wrong on this server; its log says what").write(w)
}
