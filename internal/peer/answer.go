package peer

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"fragua.dev/fragua/contract/artifacts"
	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/identity"
	"fragua.dev/fragua/internal/sqldb"
)

const (
	readHeader = 5 * time.Second
	answerTime = time.Minute
)

// Hall answers other processes: what rooms ask each other, and beside it the API of
// the rooms that are here.
type Hall struct {
	mux *http.ServeMux
	log *slog.Logger
}

// NewHall returns a hall in which nothing is answered yet.
func NewHall(log *slog.Logger) *Hall { return &Hall{http.NewServeMux(), log} }

// API has the hall pass on, to the API of the rooms that are here, what is no
// question of a room.
func (h *Hall) API(api http.Handler) { h.mux.Handle("/", api) }

// Server returns what serves the hall to the rooms of the house, as the rooms of ids,
// and the listener for it.
func (h *Hall) Server(ids []*Identity) (*http.Server, net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("peer: %w", err)
	}
	s := &http.Server{
		Handler: h.mux, ReadHeaderTimeout: readHeader, IdleTimeout: 2 * idleTime, MaxHeaderBytes: maxFile,
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	return s, tls.NewListener(l, server(ids)), nil
}

// from returns the room whose certificate a request came with.
func from(r *http.Request) string { return identity.RoomOf(identity.Peer(r.TLS)) }

// Answer has the hall answer a question of the rooms in askers (none: of every room).
func Answer[In, Out any](h *Hall, path string, askers []string, f func(ctx context.Context, asker string, in In) (Out, error)) {
	h.Stream(path, askers, func(w http.ResponseWriter, r *http.Request, asker string) error {
		ctx, cancel := context.WithTimeout(r.Context(), answerTime)
		defer cancel()
		clock, until := http.NewResponseController(w), time.Now().Add(answerTime)
		_ = clock.SetReadDeadline(until) // not every writer has one: tests'
		_ = clock.SetWriteDeadline(until.Add(answerTime))
		var in In
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, MaxBody)).Decode(&in); err != nil {
			return fmt.Errorf("the question cannot be read: %w", err)
		}
		_ = clock.SetReadDeadline(time.Time{}) // from here on it would be taken for the caller's end
		out, err := f(ctx, asker, in)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(out)
	})
}

// Stream has the hall answer a request by f, which reads and writes as it likes. An
// error is told if nothing has been written.
func (h *Hall) Stream(path string, askers []string, f func(w http.ResponseWriter, r *http.Request, asker string) error) {
	h.mux.HandleFunc("POST "+Prefix+path, func(w http.ResponseWriter, r *http.Request) {
		asker := from(r)
		if asker == "" || len(askers) > 0 && !slices.Contains(askers, asker) {
			h.log.Warn("a room asked what is not its to ask", "room", asker, "path", path)
			refuse(w, http.StatusForbidden, errors.New("that is not for this room to ask"))
			return
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // the request before may have left one
		err := f(w, r, asker)
		switch {
		case err == nil:
		case r.Context().Err() != nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, sqldb.ErrClosed):
			http.Error(w, "this process is busy, or ends", http.StatusServiceUnavailable) // no refusal: it is asked again
		default:
			refuse(w, http.StatusUnprocessableEntity, err)
		}
	})
}

// kinds are errors that stay what they are on their way to another process.
var kinds = map[string]error{
	"no_token": authz.ErrNoToken, "bad_token": authz.ErrBadToken, "no_artifact": artifacts.ErrNotFound,
	"artifact_conflict": artifacts.ErrConflict, "no_secret": artifacts.ErrNoSecret,
}

// A refusal is an error on its way.
type refusal struct {
	Kind string `json:"kind,omitempty"`
	Text string `json:"text"`
}

func refuse(w http.ResponseWriter, status int, err error) {
	r := refusal{Text: err.Error()}
	for k, is := range kinds {
		if errors.Is(err, is) {
			r.Kind = k
		}
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(r) // a peer that has gone is told nothing
}

// told is an error of another process.
type told struct {
	text string
	is   error
}

func (t told) Error() string { return t.text }
func (t told) Unwrap() error { return t.is }

func (r refusal) err() error { return told{r.Text, kinds[r.Kind]} }
