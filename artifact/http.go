package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	"github.com/danielgtaylor/huma/v2"

	"fragua.dev/fragua/contract/artifacts"
	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/blob"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/sqldb"
)

type (
	// Ref names an artifact in a path.
	Ref struct {
		Repository string `path:"repository" maxLength:"128"`
		Name       string `path:"name" maxLength:"128"`
		Version    string `path:"version" maxLength:"128"`
	}
	reply struct {
		Status int
		Body   Artifact
	}
	page struct {
		Body struct {
			Items []Artifact `json:"items" nullable:"false"`
			Next  string     `json:"next_cursor,omitempty"`
		}
	}
)

func (r Ref) ref() spec.ArtifactRef { return spec.ArtifactRef(r) }

const one = "/artifacts/{repository}/{name}/{version}"

// Routes adds the room's part of the API.
func (r *Room) Routes(api huma.API) {
	op := func(method, path, id, summary string) huma.Operation {
		return huma.Operation{Method: method, Path: path, OperationID: id, Summary: summary, Tags: []string{"artifacts"}}
	}
	upload := op(http.MethodPost, "/artifacts", "upload-artifact", "Upload an artifact; its checksum is mandatory")
	upload.DefaultStatus = http.StatusCreated
	upload.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/octet-stream": {}}}
	huma.Register(api, httpapi.Again(upload), r.upload)
	huma.Register(api, op(http.MethodGet, "/artifacts", "list-artifacts", "Artifacts, by name"), r.list)
	huma.Register(api, op(http.MethodGet, one, "get-artifact", "An artifact"), func(ctx context.Context, in *Ref) (*reply, error) {
		a, err := r.visible(ctx, in.ref(), "Artifact::read")
		if err != nil {
			return nil, err
		}
		return &reply{http.StatusOK, *a}, nil
	})
	content := op(http.MethodGet, one+"/content", "get-artifact-content", "An artifact's content")
	content.Responses = map[string]*huma.Response{
		"200": {Description: "The content", Content: map[string]*huma.MediaType{"application/octet-stream": {}}},
		"206": {Description: "The part that Range asks for", Content: map[string]*huma.MediaType{"application/octet-stream": {}}},
	}
	huma.Register(api, content, r.content)
	huma.Register(api, op(http.MethodDelete, one, "delete-artifact", "Delete an artifact"), r.remove)
	huma.Register(api, op(http.MethodPost, one+"/promote", "promote-artifact", "Let an artifact be used in an environment"), r.promote)
	huma.Register(api, op(http.MethodPost, one+"/validate", "validate-artifact", "Compare an artifact's content with its checksum"), r.validate)
	huma.Register(api, op(http.MethodGet, one+"/dependencies", "get-artifact-dependencies", "What an artifact needs"), r.dependencies)
	huma.Register(api, op(http.MethodPut, one+"/dependencies", "set-artifact-dependencies", "Say what an artifact needs"), r.depend)
}

// Upload is what POST /artifacts takes.
type Upload struct {
	Repository string `query:"repository" required:"true" maxLength:"128"`
	Name       string `query:"name" required:"true" maxLength:"128"`
	Version    string `query:"version" required:"true" maxLength:"128"`
	Checksum   string `query:"checksum" required:"true" maxLength:"256" doc:"sha256:HEX, sha512:HEX or blake3:HEX"`

	r io.Reader
}

// Resolve keeps the request's body as a stream, unread, and says what is wrong with the
// rest of it.
func (u *Upload) Resolve(c huma.Context) []error {
	u.r = c.BodyReader()
	var faults []spec.Fault
	for at, v := range map[string]string{"repository": u.Repository, "name": u.Name, "version": u.Version} {
		if !ident.Valid(v) {
			faults = append(faults, spec.Fault{Path: at, Message: "want 1 to 128 letters, digits, '.', '_' or '-', beginning with a letter or digit"})
		}
	}
	if _, _, ok := parseChecksum(u.Checksum); !ok {
		faults = append(faults, spec.Fault{Path: "checksum", Message: "want sha256:, sha512: or blake3: and the sum in hexadecimal, of 64, 128 or 64 digits"})
	}
	return httpapi.Faults("query", faults)
}

func (r *Room) upload(ctx context.Context, in *Upload) (*reply, error) {
	ref := spec.ArtifactRef{Repository: in.Repository, Name: in.Name, Version: in.Version}
	want, second, _ := parseChecksum(in.Checksum)
	who := authz.From(ctx)
	resource := authz.Resource{Type: "Artifact", ID: ref.String(), Tenant: who.Tenant, Attrs: attrs(ref, in.Checksum, true)}
	answer, err := r.gate.Ask(ctx, "Artifact::upload", resource, nil) // before the body is read
	if err != nil {
		return nil, err
	}
	got, err := r.store.Receive(ctx, in.r, r.cfg.MaxBytes, second)
	switch {
	case errors.Is(err, blob.ErrTooLarge):
		return nil, huma.Error413RequestEntityTooLarge(fmt.Sprintf("an artifact has at most %d bytes", r.cfg.MaxBytes))
	case errors.Is(err, blob.ErrFull):
		return nil, httpapi.NotReady("the disk is full")
	case errors.Is(err, blob.ErrBrokeOff):
		return nil, httpapi.BrokeOff(err)
	case err != nil:
		return nil, err
	}
	sum := got.Sum
	if second != nil {
		sum = hex.EncodeToString(second.Sum(nil))
	}
	if sum != want.Value {
		got.Drop()
		return nil, httpapi.Invalid("query", []spec.Fault{{Path: "checksum", Message: "the content has another checksum; nothing was kept"}})
	}
	now := r.cfg.Now().UTC()
	a, fresh, err := r.keep(ctx, &Artifact{
		ArtifactRef: ref, Tenant: who.Tenant, Checksum: want, Status: "valid", Environments: []string{}, Created: now, Checked: now, Owner: who.Sub,
	}, got, answer.Event)
	if errors.Is(err, artifacts.ErrConflict) {
		return nil, httpapi.Conflict("another content is kept under this name and version: give another version")
	}
	if err != nil {
		return nil, err
	}
	out := &reply{http.StatusOK, *a}
	if fresh {
		out.Status = http.StatusCreated
	}
	return out, nil
}

func resource(a *Artifact) authz.Resource {
	return authz.Resource{Type: "Artifact", ID: a.ArtifactRef.String(), Tenant: a.Tenant, Attrs: attrs(a.ArtifactRef, "", a.Status == "valid")}
}

// visible returns an artifact of the caller's tenant that the caller may use so.
func (r *Room) visible(ctx context.Context, ref spec.ArtifactRef, action string) (*Artifact, error) {
	a, err := r.find(ctx, ref, action)
	if err != nil {
		return nil, err
	}
	return a, r.gate.Pass(ctx, action, resource(a))
}

// find returns an artifact of the caller's tenant, for action. Whether the caller may is
// asked here only if there is none.
func (r *Room) find(ctx context.Context, ref spec.ArtifactRef, action string) (*Artifact, error) {
	t := authz.From(ctx).Tenant
	a, err := r.read(ctx, t, ref)
	if errors.Is(err, errAbsent) {
		// Its content is as good as any: nothing but the caller's right decides.
		return nil, r.gate.Absent(ctx, action, resource(&Artifact{ArtifactRef: ref, Tenant: t, Status: "valid"}), "artifact")
	}
	return a, err
}

func (r *Room) list(ctx context.Context, in *struct {
	httpapi.Page
	Repository string `query:"repository" maxLength:"128"`
	Name       string `query:"name" maxLength:"128"`
}) (*page, error) {
	t := authz.From(ctx).Tenant
	if err := r.gate.Pass(ctx, "Artifact::read", authz.Resource{Type: "Artifact", ID: "*", Tenant: t, Attrs: attrs(spec.ArtifactRef{Repository: in.Repository}, "", true)}); err != nil {
		return nil, err
	}
	after := strings.SplitN(in.Cursor+"//", "/", 3)
	rows, err := r.db.Query(ctx, `SELECT sum, body FROM artifact WHERE tenant = $1 AND (repository, name, version) > ($2, $3, $4)
		AND ($5 = '' OR repository = $5) AND ($6 = '' OR name = $6) ORDER BY repository, name, version LIMIT $7`,
		string(t), after[0], after[1], strings.TrimRight(after[2], "/"), in.Repository, in.Name, in.Limit+1)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := &page{}
	out.Body.Items = []Artifact{}
	for rows.Next() {
		a, err := decode(rows)
		if err != nil {
			return nil, err
		}
		if len(out.Body.Items) == in.Limit {
			out.Body.Next = out.Body.Items[in.Limit-1].ArtifactRef.String()
			break
		}
		out.Body.Items = append(out.Body.Items, *a)
	}
	return out, rows.Err()
}

// change loads an artifact, lets fn change it, and saves it with what happened.
func (r *Room) change(ctx context.Context, in *Ref, action string, fn func(a *Artifact, now time.Time) ([]event.Event, error)) (*reply, error) {
	a, err := r.find(ctx, in.ref(), action)
	if err != nil {
		return nil, err
	}
	answer, err := r.gate.Ask(ctx, action, resource(a), nil)
	if err != nil {
		return nil, err
	}
	err = r.db.Write(ctx, func(tx *sqldb.Tx) error {
		if a, err = load(tx, a.Tenant, a.ArtifactRef); err != nil {
			return httpapi.NotFound("artifact")
		}
		facts, err := fn(a, r.cfg.Now().UTC())
		if err != nil {
			return err
		}
		if err := save(tx, a); err != nil {
			return err
		}
		return tx.Emit(append(facts, answer.Event)...)
	})
	if err != nil {
		return nil, err
	}
	return &reply{http.StatusOK, *a}, nil
}

func (r *Room) promote(ctx context.Context, in *struct {
	Repository string `path:"repository" maxLength:"128"`
	Name       string `path:"name" maxLength:"128"`
	Version    string `path:"version" maxLength:"128"`
	Body       struct {
		Env string `json:"env" maxLength:"128" minLength:"1" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$"`
	}
}) (*reply, error) {
	return r.change(ctx, &Ref{in.Repository, in.Name, in.Version}, "Artifact::promote", func(a *Artifact, now time.Time) ([]event.Event, error) {
		if a.Status != "valid" {
			return nil, httpapi.Conflict(errCorrupt.Error())
		}
		if !a.promote(in.Body.Env) {
			return nil, nil
		}
		return []event.Event{event.ArtifactPromoted.Event(about(ctx, a, in.Body.Env+"."+a.times(), now), event.ArtifactMoved{Ref: a.ArtifactRef, Env: in.Body.Env})}, nil
	})
}

// validate reads the whole content again.
func (r *Room) validate(ctx context.Context, in *Ref) (*reply, error) {
	a, err := r.find(ctx, in.ref(), "Artifact::validate")
	if err != nil {
		return nil, err
	}
	status := "corrupt"
	f, err := r.store.Get(a.Tenant, a.sum)
	if err == nil {
		if matches(a, f) {
			status = "valid"
		}
		f.Close()
	}
	return r.change(ctx, in, "Artifact::validate", func(a *Artifact, now time.Time) ([]event.Event, error) {
		return []event.Event{a.checked(ctx, status, now)}, nil
	})
}

// matches says whether a content has an artifact's checksum, and the SHA-256 under
// which it is kept.
func matches(a *Artifact, content io.Reader) bool {
	want, second, ok := parseChecksum(a.Checksum.Algo + ":" + a.Checksum.Value)
	sum := sha256.New()
	out := io.Writer(sum)
	if second != nil {
		out = io.MultiWriter(sum, second)
	}
	if _, err := io.Copy(out, content); err != nil || !ok {
		return false
	}
	return hex.EncodeToString(sum.Sum(nil)) == a.sum && (second == nil || hex.EncodeToString(second.Sum(nil)) == want.Value)
}

// remove deletes an artifact, and its content unless another has the same.
func (r *Room) remove(ctx context.Context, in *Ref) (*reply, error) {
	a, err := r.find(ctx, in.ref(), "Artifact::delete")
	if err != nil {
		return nil, err
	}
	answer, err := r.gate.Ask(ctx, "Artifact::delete", resource(a), nil)
	if err != nil {
		return nil, err
	}
	err = r.db.Write(ctx, func(tx *sqldb.Tx) error {
		now, err := load(tx, a.Tenant, a.ArtifactRef)
		if errors.Is(err, errAbsent) {
			return httpapi.NotFound("artifact")
		}
		if err != nil {
			return err
		}
		a = now
		if _, err := tx.Exec(`DELETE FROM artifact WHERE tenant = $1 AND repository = $2 AND name = $3 AND version = $4`,
			string(a.Tenant), a.Repository, a.Name, a.Version); err != nil {
			return err
		}
		return tx.Emit(answer.Event)
	})
	if err == nil {
		err = r.discard(context.WithoutCancel(ctx), a.Tenant, a.sum)
	}
	return &reply{http.StatusOK, *a}, err
}

type dependencyReply struct {
	Body struct {
		Items []Dependency `json:"items" nullable:"false"`
	}
}

func (r *Room) dependencies(ctx context.Context, in *Ref) (*dependencyReply, error) {
	a, err := r.visible(ctx, in.ref(), "Artifact::read")
	if err != nil {
		return nil, err
	}
	out := &dependencyReply{}
	out.Body.Items = append([]Dependency{}, a.Dependencies...)
	return out, nil
}

func (r *Room) depend(ctx context.Context, in *struct {
	Repository string `path:"repository" maxLength:"128"`
	Name       string `path:"name" maxLength:"128"`
	Version    string `path:"version" maxLength:"128"`
	Body       struct {
		Items []Dependency `json:"items" maxItems:"256" nullable:"false"`
	}
}) (*reply, error) {
	ref := Ref{in.Repository, in.Name, in.Version}
	var faults []spec.Fault
	for i, d := range in.Body.Items {
		at := fmt.Sprintf("items[%d]", i)
		if d.From != ref.ref() {
			faults = append(faults, spec.Fault{Path: at + ".from", Message: "want the artifact of the path"})
		}
		if _, err := semver.NewConstraint(d.Constraint); d.Constraint != "" && err != nil {
			faults = append(faults, spec.Fault{Path: at + ".constraint", Message: "want a range of semantic versions, such as ^1.2 or >=1.0, <2.0"})
		}
		for k, to := range d.To {
			if to == ref.ref() {
				faults = append(faults, spec.Fault{Path: fmt.Sprintf("%s.to[%d]", at, k), Message: "an artifact does not need itself"})
			}
		}
	}
	if faults != nil {
		return nil, httpapi.Invalid("body", faults)
	}
	return r.change(ctx, &ref, "Artifact::upload", func(a *Artifact, _ time.Time) ([]event.Event, error) {
		a.Dependencies = in.Body.Items
		return nil, nil
	})
}
