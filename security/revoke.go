package security

import (
	"context"
	"errors"
	"strings"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/sqldb"
)

func (r *Room) revokeToken(ctx context.Context, in *struct {
	ID string `path:"id" maxLength:"128"`
}) (*struct{}, error) {
	me := authz.From(ctx)
	resource := authz.Resource{Type: "Token", ID: in.ID, Tenant: me.Tenant}
	var sub, maker, scopes string
	err := r.db.QueryRow(ctx, `SELECT sub, maker, scopes FROM token WHERE tenant = $1 AND id = $2`, string(me.Tenant), in.ID).Scan(&sub, &maker, &scopes)
	if errors.Is(err, sqldb.ErrNoRows) {
		return nil, r.gate.Absent(ctx, "Token::revoke", resource, "token")
	}
	if err != nil {
		return nil, err
	}
	answer, err := r.gate.Ask(ctx, "Token::revoke", resource, nil)
	if err != nil {
		return nil, err
	}
	if more := lacks(me.Scopes, strings.Fields(scopes)); len(more) > 0 && me.Sub != sub && me.Sub != maker {
		return nil, r.forbid(ctx, answer, "Token::revoke", in.ID, "a token cannot revoke one with scopes that it lacks: "+strings.Join(more, ", "))
	}
	now := r.cfg.Now()
	var gone []revocable
	err = r.db.Write(ctx, func(tx *sqldb.Tx) (err error) {
		if gone, err = madeWith(tx, me.Tenant, in.ID); err != nil {
			return err
		}
		for _, t := range gone {
			if _, err := tx.Exec(`UPDATE token SET revoked_ms = $1 WHERE tenant = $2 AND id = $3`, now.UnixMilli(), string(t.tenant), t.id); err != nil {
				return err
			}
			// the one that was asked about shares the decision of its call; each of
			// the others has one of its own in the trail, of its own tenant
			decision := answer.DecisionID
			if t.id != in.ID {
				decision = ident.Decision(r.cfg.IDs("dec"))
			}
			if err := tx.Emit(event.AuthRevoked.Event(
				event.About{Tenant: t.tenant, Key: string(decision), Correlation: httpapi.Correlation(ctx), TraceParent: httpapi.TraceParent(ctx), At: now},
				event.Grant{Principal: event.Principal{Sub: t.sub, Scopes: strings.Fields(t.scopes), Tenant: t.tenant}, Scope: t.scopes, DecisionID: decision, Resource: "Token::" + t.id})); err != nil {
				return err
			}
		}
		return tx.Emit(answer.Event)
	})
	if err != nil {
		return nil, err
	}
	for _, t := range gone {
		r.tokens.revoke(t.id, t.expires)
	}
	return nil, nil
}

// A revocable is a token that is not revoked yet.
type revocable struct {
	tenant          ident.Tenant
	id, sub, scopes string
	expires         time.Time
}

// madeWith returns a token and all that were made with it, directly or not, but for
// those that are revoked.
func madeWith(tx *sqldb.Tx, tenant ident.Tenant, id string) (all []revocable, err error) {
	rows, err := tx.Query(`WITH RECURSIVE made (tenant, id) AS (
			VALUES ($1, $2) UNION SELECT t.tenant, t.id FROM made JOIN token AS t ON t.parent = made.id AND t.parent <> '')
		SELECT t.tenant, t.id, t.sub, t.scopes, t.expires_ms FROM made JOIN token AS t ON t.tenant = made.tenant AND t.id = made.id
		WHERE t.revoked_ms = 0`, string(tenant), id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var (
			t  revocable
			ms int64
		)
		if err := rows.Scan(&t.tenant, &t.id, &t.sub, &t.scopes, &ms); err != nil {
			return nil, err
		}
		t.expires = time.UnixMilli(ms)
		all = append(all, t)
	}
	return all, rows.Err()
}
