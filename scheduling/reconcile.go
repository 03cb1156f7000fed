package scheduling

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/sqldb"
)

const (
	reconcileEvery = 30 * time.Second
	maxResaid      = 1000             // events said again in one round
	mostResayAfter = 10 * time.Minute // between two times the same is said again
	pruneBatch     = 2000
	afreshEvery    = 10 // rounds: then what a policy denied is tried again
)

// Run plans what was left waiting, and then compares, every half minute, what
// should be with what is heard, until ctx ends. Anything that one lost message
// could have spoilt is repaired here.
func (r *Room) Run(ctx context.Context) error {
	if err := r.ask(ctx, func(*turn) error { return nil }); err != nil && ctx.Err() == nil && !errors.Is(err, sqldb.ErrClosed) {
		r.cfg.Log.Error("scheduling cannot plan", "error", err)
	}
	for round := 1; ; round++ {
		// Jitter, so that rooms that were started together do not work together.
		jitter := time.Duration(mix(hash(hashSeed, r.cfg.IDs("tick"))) % uint64(reconcileEvery/2))
		t := time.NewTimer(reconcileEvery*3/4 + jitter)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
		if err := r.reconcile(ctx, round%afreshEvery == 0); err != nil && ctx.Err() == nil {
			if errors.Is(err, sqldb.ErrClosed) {
				return nil
			}
			r.cfg.Log.Error("scheduling cannot reconcile", "error", err)
		}
	}
}

// reconcile does one round.
func (r *Room) reconcile(ctx context.Context, afresh bool) error {
	if err := r.ask(ctx, func(t *turn) error { t.repair(afresh); return nil }); err != nil {
		return err
	}
	for ctx.Err() == nil {
		var n int64
		err := r.ask(ctx, func(t *turn) (err error) {
			old := t.now.Add(-r.cfg.KeepEnded)
			if n, err = prune(t.tx, old, pruneBatch); err != nil {
				return err
			}
			more, err := pruneNeeds(t.tx, old, pruneBatch)
			n = max(n, more)
			return err
		})
		if err != nil || n < pruneBatch {
			return err
		}
	}
	return nil
}

// repair says again what seems not to have been heard, lets those try again whom
// a policy denied nodes, and keeps a node for who has waited too long.
func (t *turn) repair(afresh bool) {
	r := t.room
	r.snap.Resume(afresh)
	r.snap.Hold(t.now.Add(-r.cfg.StarveAfter).UnixNano())
	var again []*place
	for _, p := range r.byID {
		if p.node == "" || !p.ended.IsZero() {
			continue
		}
		if p.started && !p.noted {
			t.touch(p)
		}
		if (p.state == Revoked || !p.started) && t.now.Sub(p.said) >= r.resayAfter(p.round) {
			again = append(again, p)
		}
	}
	slices.SortFunc(again, func(a, b *place) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, p := range again[:min(len(again), maxResaid)] {
		p.round++
		p.said = t.now
		t.touch(p)
		if p.state == Created {
			t.emit(p.createdEvent(t.now))
		} else {
			t.emit(event.AssignmentRevoked.Event(p.about(t.now), p.rejection()))
		}
	}
	for _, l := range r.nodes {
		l.unsaid, r.unsaid = true, true
	}
}

// resayAfter is how long nothing is said again after a round.
func (r *Room) resayAfter(round int) time.Duration {
	return min(r.cfg.ResayAfter<<min(round, 10), max(mostResayAfter, r.cfg.ResayAfter))
}
