package far

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"fragua.dev/fragua/contract/artifacts"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/peer"
)

// stall is how long a content may stand still on its way, and how long the end of
// one may take: it is made durable.
const stall = 5 * time.Minute

// Keeper is the artifact room of another process.
type Keeper struct{ Caller *peer.Caller }

var _ artifacts.Keeper = Keeper{}

// AnswerKeeper has h answer what the execution room asks of the artifact room.
func AnswerKeeper(h *peer.Hall, k artifacts.Keeper) {
	askers := []string{"execution"}
	h.Stream("keep", askers, func(w http.ResponseWriter, r *http.Request, _ string) error {
		t, ref := named(r)
		if err := k.Keep(r.Context(), t, ref, &moving{r.Body, http.NewResponseController(w).SetReadDeadline}); err != nil {
			return err
		}
		_, err := io.WriteString(w, "{}")
		return err
	})
	h.Stream("open", askers, func(w http.ResponseWriter, r *http.Request, _ string) error {
		t, ref := named(r)
		content, err := k.Open(r.Context(), t, ref)
		if err != nil {
			return err
		}
		defer content.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		if _, err := io.Copy(w, &moving{content, http.NewResponseController(w).SetWriteDeadline}); err != nil {
			panic(http.ErrAbortHandler) // half a content must not look like a whole one
		}
		return nil
	})
}

// moving gives each piece of a content its time anew.
type moving struct {
	io.Reader
	deadline func(time.Time) error
}

func (m *moving) Read(p []byte) (int, error) {
	_ = m.deadline(time.Now().Add(stall)) // not every connection has one: tests'
	n, err := m.Reader.Read(p)
	if err != nil {
		_ = m.deadline(time.Time{}) // else it would be taken for the peer's end
	}
	return n, err
}

func name(path string, t ident.Tenant, ref spec.ArtifactRef) string {
	return path + "?" + url.Values{"tenant": {string(t)}, "repository": {ref.Repository}, "name": {ref.Name}, "version": {ref.Version}}.Encode()
}

func named(r *http.Request) (ident.Tenant, spec.ArtifactRef) {
	q := r.URL.Query()
	return ident.Tenant(q.Get("tenant")), spec.ArtifactRef{Repository: q.Get("repository"), Name: q.Get("name"), Version: q.Get("version")}
}

// Keep sends a content. One that could not be read is the reader's error; a room that
// is away is artifacts.ErrAway.
func (k Keeper) Keep(ctx context.Context, t ident.Tenant, ref spec.ArtifactRef, r io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	content := &sent{Reader: r, stalled: time.AfterFunc(stall, cancel)}
	defer content.stalled.Stop()
	answer, err := k.Caller.Send(ctx, "artifact", name("keep", t, ref), content)
	if err == nil {
		return answer.Close()
	}
	if broke := content.err.Load(); broke != nil {
		return *broke
	}
	return away(err)
}

// Open fetches a content.
func (k Keeper) Open(ctx context.Context, t ident.Tenant, ref spec.ArtifactRef) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	stalled := time.AfterFunc(stall, cancel)
	body, err := k.Caller.Send(ctx, "artifact", name("open", t, ref), nil)
	stalled.Stop()
	if err != nil {
		cancel()
		return nil, away(err)
	}
	return &fetched{body, stalled, cancel}, nil
}

func away(err error) error {
	if errors.Is(err, peer.ErrAway) {
		return fmt.Errorf("%w: %w", artifacts.ErrAway, err)
	}
	return err
}

// sent is a content on its way out. It remembers why its reader broke off; it may be
// read from for a moment after the answer has come.
type sent struct {
	io.Reader
	err     atomic.Pointer[error]
	stalled *time.Timer // runs while the other end is waited for, not the reader
}

func (s *sent) Read(p []byte) (int, error) {
	s.stalled.Stop()
	n, err := s.Reader.Read(p)
	s.stalled.Reset(stall)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err.Store(&err)
	}
	return n, err
}

// fetched is a content on its way in.
type fetched struct {
	io.ReadCloser
	stalled *time.Timer
	cancel  context.CancelFunc
}

func (f *fetched) Read(p []byte) (int, error) {
	f.stalled.Reset(stall)
	defer f.stalled.Stop()
	return f.ReadCloser.Read(p)
}

func (f *fetched) Close() error {
	f.stalled.Stop()
	f.cancel()
	return f.ReadCloser.Close()
}
