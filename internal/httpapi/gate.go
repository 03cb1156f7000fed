package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/sqldb"
)

// A Gate asks, for a room, whether the caller may do something. DB is the room's
// own: the decision is kept with what it was about.
type Gate struct {
	Decider authz.Decider
	DB      *sqldb.DB
}

// met are the obligations that hold for every call of every room: the tenant of
// all that is read and written is the token's.
var met = map[string]bool{"limit_to_tenant": true}

// Ask asks before something is written. A denial is committed here, and is a 403.
// The event of a permit is the caller's to emit, in its own transaction; when the
// request is refused for another reason, and so has none, the handler keeps it.
func (g Gate) Ask(ctx context.Context, action string, res authz.Resource, attrs map[string]any) (authz.Answer, error) {
	a, err := g.ask(ctx, action, res, attrs)
	if c := of(ctx); err == nil && c != nil {
		c.permits = append(c.permits, permit{g.DB, a.DecisionID, a.Event})
	}
	return a, err
}

func (g Gate) ask(ctx context.Context, action string, res authz.Resource, attrs map[string]any) (authz.Answer, error) {
	a := g.Decider.Decide(ctx, authz.Question{
		Principal: authz.From(ctx), Action: action, Resource: res, Context: attrs,
		TraceParent: TraceParent(ctx), Correlation: Correlation(ctx),
	})
	if a.Permit {
		for _, o := range a.Obligations {
			if !met[o] { // the decider denies these by itself: one that does not must not open the door
				return authz.Answer{DecisionID: a.DecisionID}, denied(a, "an obligation cannot be met here: "+o)
			}
		}
		return a, nil
	}
	return a, g.Deny(ctx, a)
}

// Deny commits a denial and answers 403. Rooms call it by themselves where they
// find a reason that no policy can know: it takes the place of the permit of its id.
func (g Gate) Deny(ctx context.Context, a authz.Answer) error {
	if c := of(ctx); c != nil {
		c.permits = slices.DeleteFunc(c.permits, func(p permit) bool { return p.id == a.DecisionID })
	}
	if err := g.DB.Write(ctx, func(tx *sqldb.Tx) error { return tx.Emit(a.Event) }); err != nil {
		return fmt.Errorf("keep a denial: %w", err)
	}
	return denied(a, a.Reason)
}

// Pass asks before something is read, and commits the decision.
func (g Gate) Pass(ctx context.Context, action string, res authz.Resource) error {
	_, err := g.Passed(ctx, action, res)
	return err
}

// Passed is Pass for those who need the decision.
func (g Gate) Passed(ctx context.Context, action string, res authz.Resource) (authz.Answer, error) {
	a, err := g.ask(ctx, action, res, nil)
	if err != nil {
		return a, err
	}
	return a, permit{g.DB, a.DecisionID, a.Event}.keep(ctx)
}

// Absent asks about what is not there, and answers 404 to who may do this, and 403 to
// others: they do not learn which names are taken.
func (g Gate) Absent(ctx context.Context, action string, res authz.Resource, what string) error {
	if err := g.Pass(ctx, action, res); err != nil {
		return err
	}
	return NotFound(what)
}

// A permit is a decision whose event is kept in db.
type permit struct {
	db    *sqldb.DB
	id    ident.Decision
	event event.Event
}

func (p permit) keep(ctx context.Context) error {
	if err := p.db.Write(ctx, func(tx *sqldb.Tx) error { return tx.Emit(p.event) }); err != nil {
		return fmt.Errorf("keep a decision: %w", err)
	}
	return nil
}

func denied(a authz.Answer, reason string) error {
	p := problem(http.StatusForbidden, "denied: "+shorten(reason, maxMessage))
	p.Decision = a.DecisionID
	return p
}
