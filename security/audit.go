package security

import (
	"context"
	"strconv"
	"strings"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
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

// noteTime is how late a record may be: more are written down together.
const noteTime = 100 * time.Millisecond

// heardTime bounds how long a reader of the trail waits for its own record.
const heardTime = 500 * time.Millisecond

// Subscriptions returns what the room listens to: the decisions of every room.
func (r *Room) Subscriptions() []bus.Subscription {
	return bus.Together(noteTime, r.note, event.AuthGranted.Subject, event.AuthorizationDenied.Subject, event.AuthRevoked.Subject)
}

// An entry is a row of the audit trail.
type entry struct {
	kind                                             int
	decision, principal, action, resource, why, corr string
	tenant                                           ident.Tenant
	us                                               int64
}

func entryOf(e event.Event) (entry, error) {
	r := entry{tenant: e.Tenant, us: e.Time.UnixMicro(), corr: e.CorrelationID}
	switch e.Subject {
	case event.AuthorizationDenied.Subject:
		d, err := event.AuthorizationDenied.Read(e)
		r.kind, r.decision, r.principal, r.action, r.resource, r.why = denied, string(d.DecisionID), d.Principal.Sub, d.Action, d.Resource, d.Reason
		return r, err
	case event.AuthRevoked.Subject:
		d, err := event.AuthRevoked.Read(e)
		r.kind, r.decision, r.principal, r.action, r.resource, r.why = revoked, string(d.DecisionID), d.Principal.Sub, d.Scope, d.Resource, strings.Join(d.Policies, " ")
		return r, err
	}
	d, err := event.AuthGranted.Read(e)
	r.kind, r.decision, r.principal, r.action, r.resource, r.why = permitted, string(d.DecisionID), d.Principal.Sub, d.Scope, d.Resource, strings.Join(d.Policies, " ")
	return r, err
}

// note keeps decisions, each once, however often it is told: an event's id follows
// from its tenant, kind and decision, which are the row's key.
func (r *Room) note(ctx context.Context, events []event.Event) error {
	entries := make([]entry, len(events))
	for i, e := range events {
		var err error
		if entries[i], err = entryOf(e); err != nil {
			return err
		}
	}
	return r.db.Write(ctx, func(tx *sqldb.Tx) error {
		for left := entries; len(left) > 0; {
			n, text := 1, insertOne
			if len(left) >= insertRows {
				n, text = insertRows, insertMany
			}
			args := make([]any, 0, n*entryColumns)
			for _, a := range left[:n] {
				args = append(args, string(a.tenant), a.decision, a.kind, a.us, clip(a.principal, 512), clip(a.action, 128),
					clip(a.resource, 512), clip(a.why, maxWhy), clip(a.corr, 128))
			}
			if _, err := tx.Exec(text, args...); err != nil {
				return err
			}
			left = left[n:]
		}
		return nil
	})
}

// Rows are inserted one by one, or as many at once.
const (
	entryColumns = 9
	insertRows   = 16
)

var insertOne, insertMany = insertText(1), insertText(insertRows)

// insertText returns the statement that inserts n entries, but for those that are
// there.
func insertText(n int) string {
	rows, number := make([]string, n), 0
	for i := range rows {
		args := make([]string, entryColumns)
		for k := range args {
			number++
			args[k] = "$" + strconv.Itoa(number)
		}
		rows[i] = "(" + strings.Join(args, ", ") + ")"
	}
	return `INSERT INTO audit (tenant, decision, kind, at_us, principal, action, resource, why, correlation)
		VALUES ` + strings.Join(rows, ", ") + ` ON CONFLICT DO NOTHING`
}

// heard waits until the decision id of tenant t is in the trail, and with it all
// that were told before it; not for long, for it may have been set aside.
func (r *Room) heard(ctx context.Context, t ident.Tenant, id ident.Decision) {
	ctx, cancel := context.WithTimeout(ctx, heardTime)
	defer cancel()
	tick := time.NewTicker(heardTime / 100)
	defer tick.Stop()
	for {
		var n int
		err := r.db.QueryRow(ctx, `SELECT COUNT(*) FROM audit WHERE tenant = $1 AND decision = $2`, string(t), string(id)).Scan(&n)
		if n > 0 || err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
