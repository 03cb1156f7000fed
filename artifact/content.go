package artifact

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/blob"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/sqldb"
)

var errCorrupt = errors.New("the artifact is corrupt: upload it again under another version, or the same content under this one and validate it")

// content is an artifact's content on its way out.
type content struct {
	*blob.Checked
	failed func(error)
}

// Read tells why a content breaks off: whoever waits for it sees only that it does.
func (c *content) Read(p []byte) (int, error) {
	n, err := c.Checked.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		c.failed(err)
	}
	return n, err
}

// open opens an artifact's content. What is found to be damaged, now or when it is read,
// is corrupt from then on: the next one who asks is told so.
func (r *Room) open(ctx context.Context, a *Artifact) (io.ReadSeekCloser, error) {
	if a.Status != "valid" {
		return nil, errCorrupt
	}
	failed := func(err error) { r.broken(context.WithoutCancel(ctx), a, err) }
	f, err := r.store.Check(a.Tenant, a.sum, a.Size)
	if errors.Is(err, blob.ErrDamaged) {
		failed(err)
		return nil, errCorrupt
	}
	if err != nil {
		return nil, err
	}
	return &content{f, failed}, nil
}

func (r *Room) broken(ctx context.Context, a *Artifact, reason error) {
	r.cfg.Log.Error("the content of an artifact broke off", "tenant", a.Tenant, "artifact", a.ArtifactRef.String(), "error", reason)
	if !errors.Is(reason, blob.ErrDamaged) {
		return
	}
	err := r.db.Write(ctx, func(tx *sqldb.Tx) error {
		now, err := load(tx, a.Tenant, a.ArtifactRef)
		if errors.Is(err, errAbsent) || err == nil && now.sum != a.sum { // deleted meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		fact := now.checked(ctx, "corrupt", r.cfg.Now().UTC())
		return errors.Join(save(tx, now), tx.Emit(fact))
	})
	if err != nil {
		r.cfg.Log.Error("an artifact cannot be marked as corrupt", "artifact", a.ArtifactRef.String(), "error", err)
	}
}

// checked notes how a comparison of the content with its sum came out.
func (a *Artifact) checked(ctx context.Context, status string, now time.Time) event.Event {
	a.Status, a.Checked = status, now
	return event.ArtifactValidated.Event(about(ctx, a, now.Format(time.RFC3339Nano), now), event.ArtifactChecked{Ref: a.ArtifactRef, Status: status})
}

// content answers with an artifact's content. One that breaks off is shorter than its
// length says.
func (r *Room) content(ctx context.Context, in *Ref) (*huma.StreamResponse, error) {
	a, err := r.visible(ctx, in.ref(), "Artifact::read")
	if err != nil {
		return nil, err
	}
	f, err := r.open(ctx, a)
	if errors.Is(err, errCorrupt) {
		return nil, httpapi.Conflict(err.Error())
	}
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(c huma.Context) {
		defer f.Close()
		req, w := humago.Unwrap(c)
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Disposition", `attachment; filename="`+a.Name+`"`)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("ETag", `"`+a.sum+`"`)
		httpapi.ServeContent(w, req, f)
	}}, nil
}
