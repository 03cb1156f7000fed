package scheduling

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/observe"
	"fragua.dev/fragua/internal/sqldb"
)

const (
	maxBatch     = 256                    // requests of one turn
	maxPlaced    = 256                    // placements of one turn
	turnTime     = 10 * time.Second       // deadline of a turn
	turnEvery    = 5 * time.Millisecond   // between turns while requests come together: more share one
	retryAfter   = time.Second            // after a turn that could not be saved
	capacityRate = 100 * time.Millisecond // at most one CapacityUpdated a node in this time
	denyPause    = 4                      // nodes that an attempt may be denied before it rests
	nodeTenant   = ident.Tenant("default")
)

// Errors that concern one request, and leave the rest of its turn alone. They
// are returned before the request has changed anything.
var (
	errQueueFull = errors.New("the queue is full")
	errDiffers   = errors.New("the job asked for something else before")
	errNoPlace   = errors.New("no such job")
)

func harmless(err error) bool {
	return errors.Is(err, errQueueFull) || errors.Is(err, errDiffers) || errors.Is(err, errNoPlace) || errors.Is(err, bus.ErrLater)
}

// A request is something that is asked of the desk. Its function may run more
// than once, each time on a mirror that knows nothing of the last time.
type request struct {
	do   func(*turn) error
	done chan error
}

// ask has do run in a turn, and returns once it is durable.
func (r *Room) ask(ctx context.Context, do func(*turn) error) error {
	q := &request{do, make(chan error, 1)}
	select {
	case r.asks <- q:
	case <-ctx.Done():
		return ctx.Err()
	case <-r.quit:
		return sqldb.ErrClosed
	}
	select {
	case err := <-q.done:
		return err
	case <-r.gone:
		select {
		case err := <-q.done:
			return err
		default:
			return sqldb.ErrClosed
		}
	}
}

// work is the desk: one turn after the other, each with all that was asked
// during the one before.
func (r *Room) work() {
	defer close(r.gone)
	wake := time.NewTimer(time.Hour)
	wake.Stop()
	defer wake.Stop()
	batch := make([]*request, 0, maxBatch)
	var began time.Time
	crowded := false
	for {
		batch = batch[:0]
		select {
		case q := <-r.asks:
			batch = append(batch, q)
		case <-wake.C:
		case <-r.quit:
			return
		}
		for again := true; again; {
			if crowded {
				time.Sleep(turnEvery - time.Since(began))
			}
			batch = r.gather(batch)
			began, crowded = time.Now(), len(batch) > 1
			again = r.serve(batch)
			batch = batch[:0]
			select {
			case <-r.quit:
				return
			default:
			}
		}
		switch {
		case r.stale: // the database could not be written
			wake.Reset(retryAfter)
		case r.unsaid:
			wake.Reset(capacityRate)
		}
	}
}

func (r *Room) gather(batch []*request) []*request {
	for len(batch) < maxBatch {
		select {
		case q := <-r.asks:
			batch = append(batch, q)
		default:
			return batch
		}
	}
	return batch
}

// serve answers a batch, and says whether there is more to plan at once.
func (r *Room) serve(batch []*request) (again bool) {
	results, err := r.turn(context.Background(), batch, true)
	if err != nil && len(batch) > 1 && !errors.Is(err, sqldb.ErrFull) && !errors.Is(err, sqldb.ErrClosed) {
		// One of them spoils it, and the others must not suffer: each alone.
		for i := range batch {
			alone, err := r.turn(context.Background(), batch[i:i+1], true)
			batch[i].done <- cmp.Or(err, alone[0])
		}
		return r.more
	}
	for i, q := range batch {
		q.done <- cmp.Or(err, results[i])
	}
	if err != nil && len(batch) == 0 { // there is nobody to tell
		r.cfg.Log.Error("scheduling cannot be saved", "error", err)
	}
	return err == nil && r.more
}

// A turn is one transaction of the desk.
type turn struct {
	room    *Room
	ctx     context.Context
	tx      *sqldb.Tx
	now     time.Time
	touched []*place
	added   []*place
	events  []event.Event
}

// turn does what is asked, plans if plan is set, and saves. It returns what each
// request came to once all is durable, or why nothing of it is.
func (r *Room) turn(ctx context.Context, batch []*request, plan bool) ([]error, error) {
	ctx, cancel := context.WithTimeout(ctx, turnTime)
	defer cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	results := make([]error, len(batch))
	err := r.db.Write(ctx, func(tx *sqldb.Tx) error {
		if r.stale { // an earlier try, or turn, came to nothing
			if err := r.load(tx); err != nil {
				return err
			}
		}
		r.stale = true
		t := &turn{room: r, ctx: ctx, tx: tx, now: r.cfg.Now()}
		for i, q := range batch {
			results[i] = q.do(t)
			if err := results[i]; err != nil && !harmless(err) {
				return err
			}
		}
		if plan && !r.cfg.Hold {
			t.plan()
		}
		return t.save()
	})
	r.stale = err != nil
	return results, err
}

func (t *turn) emit(e ...event.Event) { t.events = append(t.events, e...) }

// touch has the row of p written at the end of the turn.
func (t *turn) touch(p *place) {
	if !p.touched {
		p.touched = true
		t.touched = append(t.touched, p)
	}
}

// plan finds places for what waits, as far as one turn goes.
func (t *turn) plan() {
	r := t.room
	for left := maxPlaced; ; {
		out := Plan(r.snap, left)
		r.snap.Settle(out)
		if len(out.Placed) == 0 {
			r.more = !out.Whole
			break
		}
		for i, answer := range t.decide(out.Placed) {
			p := t.of(out.Placed[i].Waiting)
			t.emit(answer.Event)
			if answer.Permit {
				t.place(p, out.Placed[i].Node)
			} else {
				r.snap.Deny(&p.Waiting, out.Placed[i].Node.ID, answer.Reason, denyPause)
			}
		}
		if left -= len(out.Placed); left <= 0 {
			r.more = !r.snap.Settled()
			break
		}
	}
	for _, p := range t.added {
		if p.waits() {
			t.reconsider(p)
		}
	}
}

// of returns the place that w is a part of.
func (t *turn) of(w *Waiting) *place {
	for _, p := range t.room.jobs[jobKey{w.Tenant, w.Job}] {
		if &p.Waiting == w {
			return p
		}
	}
	panic("scheduling: the queue holds an attempt that the room does not know")
}

// decide asks, for each placement, whether the room may make it.
func (t *turn) decide(placed []Placement) []authz.Answer {
	out := make([]authz.Answer, len(placed))
	places := make([]*place, len(placed))
	for i := range placed {
		places[i] = t.of(placed[i].Waiting)
	}
	workers := max(1, min(runtime.GOMAXPROCS(0), len(placed)/8))
	var wg sync.WaitGroup
	for k := range workers {
		wg.Go(func() {
			for i := k; i < len(placed); i += workers {
				out[i] = t.mayPlace(places[i], placed[i].Node)
			}
		})
	}
	wg.Wait()
	return out
}

func (t *turn) mayPlace(p *place, n *Node) (answer authz.Answer) {
	defer func() {
		if f := recover(); f != nil {
			answer = authz.Answer{Reason: "the decision failed"}
			t.room.cfg.Log.Error("a decision panicked", "assignment", p.id, "panic", f)
		}
	}()
	who := t.room.cfg.Principal
	who.Tenant = p.Tenant // at work for the job's tenant, to whom the node's capacity is as good as anybody's
	_, free, _ := t.room.snap.Node(n.ID)
	answer = t.room.cfg.Decider.Decide(t.ctx, authz.Question{
		Principal: who, Action: "Node::schedule",
		Resource: authz.Resource{Type: "Node", ID: string(n.ID), Tenant: p.Tenant, Attrs: map[string]any{
			"zone": n.Zone, "pool": n.Pool,
			"capacity_snapshot": fmt.Sprintf("cpu_m=%d memory_mb=%d gpu=%d io=%d", free.CPUm, free.MemoryMB, free.GPU, free.IO),
		}},
		Context:     map[string]any{"resources_available": true, "zone": n.Zone, "pool": n.Pool},
		TraceParent: p.body.TraceParent, Correlation: p.body.Correlation,
	})
	for _, o := range answer.Obligations {
		if o != "limit_to_tenant" { // a worker serves its job's tenant, and no other, anyway
			answer.Permit, answer.Reason = false, "an obligation cannot be met here: "+clip(o)
		}
	}
	answer.Reason = clip(answer.Reason)
	return answer
}

// place gives p its node.
func (t *turn) place(p *place, n *Node) {
	r := t.room
	r.snap.Take(&p.Waiting, n.ID)
	p.state, p.reason = Created, ""
	p.node, p.offer, p.provider, p.placed, p.said = n.ID, n.Offer, n.Provider, t.now, t.now
	r.nodes[n.ID].places++
	t.changed(n.ID)
	t.touch(p)
	ctx := observe.Began(observe.FromTraceParent(t.ctx, p.body.TraceParent), t.now)
	_, end := observe.ScheduleJob(ctx, p.Tenant, p.Job, n.ID, Policy)
	end(nil)
	t.emit(p.createdEvent(t.now))
}

// changed notes that a node has another capacity than was said.
func (t *turn) changed(id ident.Node) {
	if l := t.room.nodes[id]; l != nil {
		l.unsaid, t.room.unsaid = true, true
	}
}

// drop forgets a node.
func (t *turn) drop(id ident.Node) error {
	t.room.snap.DropNode(id)
	delete(t.room.nodes, id)
	return deleteNode(t.tx, id)
}

// reconsider says, once, that p can never be placed, if that is so.
func (t *turn) reconsider(p *place) {
	state, s := Pending, t.room.snap
	if !s.Possible(p.Ask) {
		state = Rejected
	}
	if state == p.state {
		return
	}
	if p.state, p.reason = state, ""; state == Rejected {
		p.reason = s.never(p.Ask)
		if !p.rejected {
			p.rejected = true
			t.emit(event.AssignmentRejected.Event(p.about(t.now), p.rejection()))
		}
	}
	t.touch(p)
}

// save writes what the turn changed.
func (t *turn) save() error {
	r := t.room
	for _, p := range t.touched {
		if err := savePlace(t.tx, p); err != nil {
			return err
		}
		p.touched, p.stored, p.noted = false, true, p.started
		if !p.ended.IsZero() {
			r.forget(p)
		}
	}
	if r.unsaid {
		t.sayCapacity()
	}
	return t.tx.Emit(t.events...)
}

// sayCapacity says what nodes have left, unless it was said a moment ago.
func (t *turn) sayCapacity() {
	r := t.room
	r.unsaid = false
	for i, n := range r.snap.nodes {
		l := r.nodes[n.ID]
		if !l.unsaid {
			continue
		}
		if since := t.now.Sub(l.said); since >= 0 && since < capacityRate {
			r.unsaid = true
			continue
		}
		l.said, l.unsaid = t.now, false
		t.emit(event.CapacityUpdated.Event(
			event.About{Tenant: nodeTenant, Key: string(n.ID), Twist: r.cfg.IDs("cap"), Correlation: string(n.ID), At: t.now},
			event.Capacity{Node: n.ID, Quota: none(r.snap.free[i]), Total: n.Total, At: t.now.UTC()}))
	}
}
