package security

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/sqldb"
)

func (r *Room) secretRoutes(api huma.API) {
	tags := []string{"security"}
	huma.Register(api, httpapi.Also(huma.Operation{
		OperationID: "set-secret", Method: http.MethodPut, Path: "/secrets/{name}", Tags: tags, Summary: "Set a secret",
		Description:   "201 when it is new, 200 when it had another value. A value never comes back: steps that name the secret see it as an environment variable.",
		DefaultStatus: http.StatusOK,
	}, http.StatusCreated, "It is new"), r.setSecret)
	huma.Register(api, huma.Operation{
		OperationID: "list-secrets", Method: http.MethodGet, Path: "/secrets", Tags: tags, Summary: "Names of the secrets, and when they were set",
	}, r.listSecrets)
	huma.Register(api, huma.Operation{
		OperationID: "delete-secret", Method: http.MethodDelete, Path: "/secrets/{name}", Tags: tags, Summary: "Remove a secret",
	}, r.deleteSecret)
}

type secretView struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created_at"`
	Updated time.Time `json:"updated_at"`
}

type secretReply struct {
	Status int
	Body   secretView
}

func secretResource(ctx context.Context, name string) authz.Resource {
	return authz.Resource{Type: "Secret", ID: name, Tenant: authz.From(ctx).Tenant}
}

// SecretName is the name in a path.
type SecretName struct {
	Name string `path:"name" maxLength:"255" example:"NPM_TOKEN" doc:"A variable's name"`
}

// Resolve says what is wrong with a name, whatever becomes of the body.
func (n *SecretName) Resolve(huma.Context) []error {
	if validSecret(n.Name) {
		return nil
	}
	return []error{&huma.ErrorDetail{Location: "path.name", Message: "a secret's name is a variable's: letters, digits and '_', and not one of the platform's own"}}
}

// secretValue is a text of bounded length; a schema counts letters, not bytes.
type secretValue string

// Resolve says when a value is too long.
func (v *secretValue) Resolve(huma.Context) []error {
	if len(*v) <= maxSecretBytes {
		return nil
	}
	return httpapi.Faults("body", []spec.Fault{{Path: "value", Message: fmt.Sprintf("want at most %d bytes", maxSecretBytes)}})
}

func (r *Room) setSecret(ctx context.Context, in *struct {
	SecretName
	Body struct {
		Value secretValue `json:"value" minLength:"1" doc:"At most 64 KiB"`
	}
}) (*secretReply, error) {
	answer, err := r.gate.Ask(ctx, "Secret::write", secretResource(ctx, in.Name), nil)
	if err != nil {
		return nil, err
	}
	t := authz.From(ctx).Tenant
	sealed, err := r.vault.seal(t, in.Name, string(in.Body.Value))
	if err != nil {
		return nil, err
	}
	var (
		fresh          bool
		madeMS, lastMS int64
	)
	err = r.db.Write(ctx, func(tx *sqldb.Tx) (err error) {
		if fresh, err = r.vault.put(tx, t, in.Name, sealed); err != nil {
			return err
		}
		if err := tx.QueryRow(`SELECT created_ms, updated_ms FROM secret WHERE tenant = $1 AND name = $2`, string(t), in.Name).Scan(&madeMS, &lastMS); err != nil {
			return err
		}
		return tx.Emit(answer.Event)
	})
	if errors.Is(err, errVaultFull) {
		return nil, httpapi.Conflict(fmt.Sprintf("a tenant has at most %d secrets; remove one first", maxSecrets))
	}
	if err != nil {
		return nil, err
	}
	out := secretView{in.Name, time.UnixMilli(madeMS).UTC(), time.UnixMilli(lastMS).UTC()}
	if fresh {
		return &secretReply{http.StatusCreated, out}, nil
	}
	return &secretReply{http.StatusOK, out}, nil
}

type secretPage struct {
	Body struct {
		Items []secretView `json:"items"`
		Next  string       `json:"next_cursor,omitempty"`
	}
}

func (r *Room) listSecrets(ctx context.Context, in *httpapi.Page) (*secretPage, error) {
	if err := r.gate.Pass(ctx, "Secret::read", secretResource(ctx, "*")); err != nil {
		return nil, err
	}
	rows, err := r.db.Query(ctx, `SELECT name, created_ms, updated_ms FROM secret WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3`,
		string(authz.From(ctx).Tenant), in.Cursor, in.Limit+1)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := &secretPage{}
	for rows.Next() {
		if len(out.Body.Items) == in.Limit {
			out.Body.Next = out.Body.Items[in.Limit-1].Name
			break
		}
		var (
			v              secretView
			madeMS, lastMS int64
		)
		if err := rows.Scan(&v.Name, &madeMS, &lastMS); err != nil {
			return nil, err
		}
		v.Created, v.Updated = time.UnixMilli(madeMS).UTC(), time.UnixMilli(lastMS).UTC()
		out.Body.Items = append(out.Body.Items, v)
	}
	return out, rows.Err()
}

func (r *Room) deleteSecret(ctx context.Context, in *struct {
	Name string `path:"name" maxLength:"255"`
}) (*struct{}, error) {
	t := authz.From(ctx).Tenant
	var there bool
	if err := r.db.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM secret WHERE tenant = $1 AND name = $2)`, string(t), in.Name).Scan(&there); err != nil {
		return nil, err
	}
	if !there {
		return nil, r.gate.Absent(ctx, "Secret::delete", secretResource(ctx, in.Name), "secret")
	}
	answer, err := r.gate.Ask(ctx, "Secret::delete", secretResource(ctx, in.Name), nil)
	if err != nil {
		return nil, err
	}
	return nil, r.db.Write(ctx, func(tx *sqldb.Tx) error {
		if _, err := tx.Exec(`DELETE FROM secret WHERE tenant = $1 AND name = $2`, string(t), in.Name); err != nil {
			return err
		}
		return tx.Emit(answer.Event)
	})
}
