package security

import (
	"context"
	"strings"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/sqldb"
)

// Kinds of audit records, as the table has them.
const (
	permitted = 1
	denied    = 2
	revoked   = 3
)

var kinds = map[int]string{permitted: "permit", denied: "deny", revoked: "revoke"}

// maxWhy bounds what a record says of the policies or the reason, in bytes.
const maxWhy = 2048

// Subscriptions returns what the room listens to: the decisions of every room.
func (r *Room) Subscriptions() []bus.Subscription {
	return []bus.Subscription{
		bus.On(event.AuthGranted, func(ctx context.Context, e event.Event, d event.Grant) error {
			return r.note(ctx, e, permitted, string(d.DecisionID), d.Principal.Sub, d.Scope, d.Resource, strings.Join(d.Policies, " "))
		}),
		bus.On(event.AuthorizationDenied, func(ctx context.Context, e event.Event, d event.Denial) error {
			return r.note(ctx, e, denied, string(d.DecisionID), d.Principal.Sub, d.Action, d.Resource, d.Reason)
		}),
		bus.On(event.AuthRevoked, func(ctx context.Context, e event.Event, d event.Grant) error {
			return r.note(ctx, e, revoked, string(d.DecisionID), d.Principal.Sub, d.Scope, d.Resource, strings.Join(d.Policies, " "))
		}),
	}
}

// note keeps a decision once, however often it is told. The event's id follows
// from its tenant, kind and decision, which are the row's key. Many are told at
// the same time, and the database saves them together.
func (r *Room) note(ctx context.Context, e event.Event, kind int, decision, principal, action, resource, why string) error {
	return r.db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(`INSERT INTO audit (tenant, decision, kind, at_us, principal, action, resource, why, correlation)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`,
			string(e.Tenant), decision, kind, e.Time.UnixMicro(), clip(principal, 512), clip(action, 128), clip(resource, 512), clip(why, maxWhy), clip(e.CorrelationID, 128))
		return err
	})
}

func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
