package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/sqldb"
)

// buffer is a log that tests read.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

type verifier struct{}

func (verifier) Verify(_ context.Context, token string) (authz.Principal, error) {
	switch token {
	case "good":
		return authz.Principal{Sub: "owner", Scopes: []string{"*"}, Tenant: "default"}, nil
	case "broken":
		return authz.Principal{}, errors.New("the database is away: secret detail")
	case "nobody":
		return authz.Principal{}, nil
	}
	return authz.Principal{}, fmt.Errorf("%w: it has expired", authz.ErrBadToken)
}

type decider struct{ answer authz.Answer }

func (d decider) Decide(_ context.Context, q authz.Question) authz.Answer {
	a := d.answer
	a.DecisionID = "dec_1"
	about := event.About{Tenant: q.Principal.Tenant, Key: "dec_1", Correlation: q.Correlation, TraceParent: q.TraceParent}
	if a.Permit {
		a.Event = event.AuthGranted.Event(about, event.Grant{DecisionID: "dec_1"})
	} else {
		a.Event = event.AuthorizationDenied.Event(about, event.Denial{DecisionID: "dec_1", Reason: a.Reason})
	}
	return a
}

type thing struct {
	Name  string            `json:"name" minLength:"1" maxLength:"20"`
	Count int64             `json:"count,omitempty" minimum:"0" maximum:"9223372036854775807"`
	Small int8              `json:"small,omitempty"`
	Kind  string            `json:"kind,omitempty" enum:"a,b"`
	Env   map[string]string `json:"env,omitempty"`
	Tags  []string          `json:"tags,omitempty" maxItems:"3" nullable:"false"`
	Inner *inner            `json:"inner,omitempty"`
	List  []inner           `json:"list,omitempty" nullable:"false"`
	Since *time.Time        `json:"since,omitempty"`
}

type inner struct {
	Flag bool   `json:"flag"`
	Text string `json:"text,omitempty" pattern:"^[a-z]*$"`
}

type server struct {
	http.Handler
	log   *buffer
	db    *sqldb.DB
	ended chan error // what ended a stream that does not end by itself
}

// serve returns a server with one operation of each kind.
func serve(t testing.TB, change ...func(*Options)) *server {
	t.Helper()
	schema := fstest.MapFS{"001_t.sql": {Data: []byte("-- +goose Up\nCREATE TABLE t (id INTEGER PRIMARY KEY);\n")}}
	db, err := sqldb.Open(context.Background(), filepath.Join(t.TempDir(), "t.db"), schema)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	ended := make(chan error, 16)
	mux := http.NewServeMux()
	api := New(mux, "1.2.3")
	huma.Register(api, huma.Operation{OperationID: "make", Method: http.MethodPost, Path: "/things", Tags: []string{"things"}, Summary: "Make a thing", DefaultStatus: http.StatusCreated},
		func(_ context.Context, in *struct{ Body thing }) (*struct{ Body thing }, error) {
			return &struct{ Body thing }{in.Body}, nil
		})
	huma.Register(api, huma.Operation{OperationID: "list", Method: http.MethodGet, Path: "/things"},
		func(_ context.Context, in *struct {
			Page
			State string    `query:"state" enum:"on,off"`
			Since time.Time `query:"since"`
			Tail  int       `query:"tail" minimum:"0"`
			Deep  bool      `query:"deep"`
			Names []string  `query:"names" maxItems:"2"`
		}) (*struct {
			Body struct {
				Items []thing `json:"items"`
				Limit int     `json:"limit"`
				Deep  bool    `json:"deep"`
			}
		}, error) {
			out := &struct {
				Body struct {
					Items []thing `json:"items"`
					Limit int     `json:"limit"`
					Deep  bool    `json:"deep"`
				}
			}{}
			out.Body.Limit, out.Body.Deep = in.Limit, in.Deep
			return out, nil
		})
	huma.Register(api, huma.Operation{OperationID: "get", Method: http.MethodGet, Path: "/things/{id}"},
		func(ctx context.Context, in *struct {
			ID string `path:"id" maxLength:"10"`
		}) (*struct{ Body map[string]string }, error) {
			switch in.ID {
			case "me":
				p := authz.From(ctx)
				return &struct{ Body map[string]string }{map[string]string{"sub": p.Sub, "correlation": Correlation(ctx), "trace": TraceParent(ctx)}}, nil
			case "conflict":
				return nil, Conflict("it is there")
			case "busy":
				return nil, fmt.Errorf("wrapped: %w", TooMany(1500*time.Millisecond, "too many"))
			case "away":
				return nil, NotReady("not yet")
			case "invalid":
				return nil, Invalid("body.spec", []spec.Fault{{Path: "b", Message: "two"}, {Path: "a[0]", Message: "one"}, {Message: "all"}, {Path: "[1]", Message: "x"}})
			case "bad":
				return nil, BadRequest("what?")
			case "odd":
				return nil, errors.New("secret detail: password=hunter2")
			case "full":
				return nil, fmt.Errorf("save: %w", sqldb.ErrFull)
			case "closed":
				return nil, fmt.Errorf("save: %w", sqldb.ErrClosed)
			case "late":
				<-ctx.Done()
				return nil, ctx.Err()
			case "panic":
				panic("secret detail")
			case "done", "refused", "dropped":
				g := Gate{decider{authz.Answer{Permit: true}}, db}
				a, err := g.Ask(ctx, "Thing::write", authz.Resource{}, nil)
				switch {
				case err != nil:
					return nil, err
				case in.ID == "refused":
					return nil, Conflict("it is there")
				case in.ID == "dropped":
					panic("after a decision")
				}
				return &struct{ Body map[string]string }{}, db.Write(ctx, func(tx *sqldb.Tx) error { return tx.Emit(a.Event) })
			case "denied":
				return nil, Gate{decider{authz.Answer{Reason: "scope thing:read is missing"}}, db}.Pass(ctx, "Thing::read", authz.Resource{})
			case "passed":
				return &struct{ Body map[string]string }{}, Gate{decider{authz.Answer{Permit: true, Obligations: []string{"limit_to_tenant"}}}, db}.Pass(ctx, "Thing::read", authz.Resource{})
			case "obliged":
				return nil, Gate{decider{authz.Answer{Permit: true, Obligations: []string{"dance"}}}, db}.Pass(ctx, "Thing::read", authz.Resource{})
			}
			return nil, NotFound("thing")
		})
	mux.HandleFunc("POST /artifacts", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			ended <- err
			Fail(w, r, BrokeOff(err))
			return
		}
		_, deadline := r.Context().Deadline()
		fmt.Fprint(w, n, err, deadline)
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: 1\n\n")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-r.Context().Done()
	})
	mux.HandleFunc("GET /logs/flood", func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 64<<10)
		for {
			if _, err := w.Write(chunk); err != nil {
				ended <- err
				return
			}
		}
	})
	mux.HandleFunc("GET /artifacts/a/b/1/content", func(w http.ResponseWriter, _ *http.Request) {
		n, err := io.Copy(w, io.LimitReader(zeros{}, 2*piece+1))
		if n != 2*piece+1 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
	mux.HandleFunc("GET /half", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "half")
		panic("in the middle")
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	log := &buffer{}
	o := Options{Verifier: verifier{}, Log: slog.New(slog.NewTextHandler(log, nil))}
	for _, f := range change {
		f(&o)
	}
	return &server{Handler(mux, o), log, db, ended}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func (s *server) do(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	var r *http.Request
	if body == "" {
		r = httptest.NewRequest(http.MethodGet, "http://x/", nil)
	} else {
		r = httptest.NewRequest(http.MethodGet, "http://x/", strings.NewReader(body))
	}
	r.Method = method
	path, query, _ := strings.Cut(target, "?")
	r.URL.Path, r.URL.RawQuery = path, query
	r.Header.Set("Authorization", "Bearer good")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header[http.CanonicalHeaderKey(headers[i])] = nil
		if headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// readProblem reads a problem and checks its form.
func readProblem(t *testing.T, w *httptest.ResponseRecorder, status int) Problem {
	t.Helper()
	if w.Code != status {
		t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	if ct := w.Header().Get("Content-Type"); ct != mediaProblem {
		t.Errorf("content type %s", ct)
	}
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	var p Problem
	if err := d.Decode(&p); err != nil {
		t.Fatal(err)
	}
	if p.Type != "about:blank" || p.Status != status || p.Title != http.StatusText(status) {
		t.Errorf("%+v", p)
	}
	return p
}
