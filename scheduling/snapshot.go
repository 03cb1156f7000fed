package scheduling

import (
	"cmp"
	"slices"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

// An Attempt names one try of a job.
type Attempt struct {
	Tenant ident.Tenant
	Job    ident.Job
	N      int // 1, 2, …; 0 for what was asked by POST /schedule
}

// Waiting is an attempt in the queue.
type Waiting struct {
	Attempt
	Order
	Ask Ask
}

// Order is where an attempt stands in the queue: FIFO within a priority.
type Order struct {
	Priority int   // the greater goes first
	Since    int64 // when it was asked for, in Unix nanoseconds: the earlier goes first
	Seq      int64 // in which order attempts came to the queue: breaks ties of Since
}

func (o *Order) compare(p *Order) int {
	if o.Priority != p.Priority {
		return cmp.Compare(p.Priority, o.Priority)
	}
	if o.Since != p.Since {
		return cmp.Compare(o.Since, p.Since)
	}
	return cmp.Compare(o.Seq, p.Seq)
}

func (w *Waiting) before(o *Waiting) int { return w.compare(&o.Order) }

// A Snapshot is what scheduling knows at one moment: the nodes, what they have
// left, and the queue. [Plan] reads it and changes nothing.
//
// It is kept from one plan to the next, with a note of what no plan has looked at
// yet: shapes that are fresh, and nodes that have more than they had (stirred).
// All others are settled: no settled shape fits on a settled node, because what a
// node has left only ever shrinks without a stir. So a plan looks at fresh shapes
// on all nodes, at settled shapes on stirred nodes, and at nothing else.
type Snapshot struct {
	nodes   []*Node
	free    []spec.Quota // of nodes, same index
	index   map[ident.Node]int
	stirred map[int]bool

	shapes  []*shape
	asks    []spec.Quota // of shapes, same index: most plans look at nothing else of them
	byKey   map[shapeKey]*shape
	fresh   map[*shape]bool
	waiting int
	byHand  int // of those that wait, asked for by POST /schedule

	held    *Waiting // has waited too long; heldOn is kept for it and its shape
	heldOn  ident.Node
	heldKey shapeKey
}

type shapeKey struct {
	ask  Ask
	solo Attempt // set for an attempt that a policy denied a node: it is a shape of its own
}

type shape struct {
	shapeKey
	at     int                   // index in Snapshot.shapes
	jobs   []*Waiting            // in order
	paused bool                  // denied too often; waits for a Resume
	denied map[ident.Node]string // only of a solo shape: which nodes, and why
}

// NewSnapshot returns a snapshot with no nodes and an empty queue.
func NewSnapshot() *Snapshot {
	return &Snapshot{index: map[ident.Node]int{}, stirred: map[int]bool{}, byKey: map[shapeKey]*shape{}, fresh: map[*shape]bool{}}
}

// SetNode adds n, or changes it, with used of it taken.
func (s *Snapshot) SetNode(n Node, used spec.Quota) {
	n.hash = hash(hashSeed, string(n.ID))
	i, ok := s.index[n.ID]
	if !ok {
		i = len(s.nodes)
		s.index[n.ID] = i
		s.nodes, s.free = append(s.nodes, nil), append(s.free, spec.Quota{})
	}
	s.nodes[i], s.free[i] = &n, n.Total.Minus(used)
	s.stirred[i] = true
}

// DropNode forgets a node.
func (s *Snapshot) DropNode(id ident.Node) {
	i, ok := s.index[id]
	if !ok {
		return
	}
	last := len(s.nodes) - 1
	s.nodes[i], s.free[i] = s.nodes[last], s.free[last]
	s.index[s.nodes[i].ID] = i
	if delete(s.stirred, i); s.stirred[last] {
		delete(s.stirred, last)
		s.stirred[i] = true
	}
	s.nodes, s.free = s.nodes[:last], s.free[:last]
	delete(s.index, id)
	if s.heldOn == id {
		s.letGo()
	}
}

// Node returns a node and what it has left, which is negative where the node
// shrank below what runs on it.
func (s *Snapshot) Node(id ident.Node) (n *Node, free spec.Quota, ok bool) {
	i, ok := s.index[id]
	if !ok {
		return nil, spec.Quota{}, false
	}
	return s.nodes[i], s.free[i], true
}

// Queued returns how many attempts wait.
func (s *Snapshot) Queued() int { return s.waiting }

// QueuedByHand returns how many of them were asked for by POST /schedule.
func (s *Snapshot) QueuedByHand() int { return s.byHand }

// Add puts w into the queue. It must not be there already.
func (s *Snapshot) Add(w *Waiting) { s.add(w, shapeKey{ask: w.Ask}) }

func (s *Snapshot) add(w *Waiting, key shapeKey) *shape {
	sh := s.byKey[key]
	if sh == nil {
		sh = &shape{shapeKey: key, at: len(s.shapes)}
		s.shapes, s.asks = append(s.shapes, sh), append(s.asks, key.ask.Resources)
		s.byKey[key], s.fresh[sh] = sh, true
	}
	i, _ := slices.BinarySearchFunc(sh.jobs, w, (*Waiting).before)
	sh.jobs = slices.Insert(sh.jobs, i, w)
	s.waiting++
	if w.N == 0 {
		s.byHand++
	}
	return sh
}

// Remove takes w out of the queue, and says whether it was in it.
func (s *Snapshot) Remove(w *Waiting) bool {
	sh, i, ok := s.find(w)
	if !ok {
		return false
	}
	if i == 0 { // as a rule: and then nothing has to move
		sh.jobs[0] = nil
		sh.jobs = sh.jobs[1:]
	} else {
		sh.jobs = slices.Delete(sh.jobs, i, i+1)
	}
	if len(sh.jobs) == 0 {
		end := len(s.shapes) - 1
		last := s.shapes[end]
		s.shapes[sh.at], s.asks[sh.at], last.at = last, s.asks[end], sh.at
		s.shapes[end] = nil
		s.shapes, s.asks = s.shapes[:end], s.asks[:end]
		delete(s.byKey, sh.shapeKey)
		delete(s.fresh, sh)
	}
	s.waiting--
	if w.N == 0 {
		s.byHand--
	}
	if s.held == w {
		s.letGo()
	}
	return true
}

func (s *Snapshot) find(w *Waiting) (*shape, int, bool) {
	for _, key := range [...]shapeKey{{ask: w.Ask}, {ask: w.Ask, solo: w.Attempt}} {
		if sh := s.byKey[key]; sh != nil {
			if i, ok := slices.BinarySearchFunc(sh.jobs, w, (*Waiting).before); ok {
				return sh, i, true
			}
		}
	}
	return nil, 0, false
}

// Take gives w, which leaves the queue, its place on a node.
func (s *Snapshot) Take(w *Waiting, node ident.Node) {
	s.Remove(w)
	i := s.index[node]
	s.free[i] = s.free[i].Minus(w.Ask.Resources)
}

// Give returns what a job had of a node.
func (s *Snapshot) Give(node ident.Node, q spec.Quota) {
	if i, ok := s.index[node]; ok {
		s.free[i] = s.free[i].Plus(q)
		s.stirred[i] = true
	}
}

// Settle notes what a plan has looked at. It is called before the plan's
// placements are carried out.
func (s *Snapshot) Settle(o Outcome) {
	for _, r := range o.Refused {
		if sh := s.byKey[r.key]; sh != nil {
			delete(s.fresh, sh)
		}
	}
	if o.Whole {
		clear(s.stirred)
	}
}

// Settled says whether a plan would find nothing to look at.
func (s *Snapshot) Settled() bool {
	if len(s.stirred) > 0 {
		return false
	}
	for sh := range s.fresh {
		if !sh.paused {
			return false
		}
	}
	return true
}

// Deny notes that a policy keeps w, which stays in the queue, off a node. After
// pauseAfter nodes it waits for Resume before it tries more. From now on w is of
// a shape of its own: others like it may have better luck.
func (s *Snapshot) Deny(w *Waiting, node ident.Node, reason string, pauseAfter int) {
	if i, ok := s.index[node]; ok {
		s.stirred[i] = true // others were refused because w would have taken it
	}
	sh, _, ok := s.find(w)
	if !ok {
		return
	}
	if sh.solo == (Attempt{}) {
		s.Remove(w)
		sh = s.add(w, shapeKey{ask: w.Ask, solo: w.Attempt})
		sh.denied = map[ident.Node]string{}
	}
	sh.denied[node] = reason
	s.fresh[sh] = true
	sh.paused = len(sh.denied)%pauseAfter == 0
}

// Resume lets the attempts that were denied nodes try again: others, or, where
// afresh is set, all of them.
func (s *Snapshot) Resume(afresh bool) {
	for _, sh := range s.shapes {
		if sh.denied == nil {
			continue
		}
		sh.paused, s.fresh[sh] = false, true
		if afresh {
			clear(sh.denied)
		}
	}
}

// Hold keeps a node for the attempt that goes first among those that wait since
// before the given time and could be placed on an emptier node: the one that has
// most of what it asks for. Smaller jobs that come later cannot keep such an
// attempt waiting for ever. At most one node is held at a time.
func (s *Snapshot) Hold(before int64) {
	if s.held != nil {
		return
	}
	var first *Waiting
	var key shapeKey
	on := -1
	for _, sh := range s.shapes {
		w := sh.jobs[0]
		if sh.paused || w.Since >= before || first != nil && first.before(w) < 0 {
			continue
		}
		if i := s.nearest(sh); i >= 0 {
			first, key, on = w, sh.shapeKey, i
		}
	}
	if first != nil {
		s.held, s.heldKey, s.heldOn = first, key, s.nodes[on].ID
	}
}

// nearest returns the node that lacks least of what sh asks for, or -1.
func (s *Snapshot) nearest(sh *shape) int {
	best, least := -1, int64(0)
	for i, n := range s.nodes {
		if _, no := sh.denied[n.ID]; no || !n.welcomes(&sh.ask) {
			continue
		}
		if lack := n.left(none(sh.ask.Resources.Minus(s.free[i]))); best < 0 || lack < least || lack == least && n.ID < s.nodes[best].ID {
			best, least = i, lack
		}
	}
	return best
}

func (s *Snapshot) letGo() {
	if i, ok := s.index[s.heldOn]; ok {
		s.stirred[i] = true
	}
	s.held, s.heldOn, s.heldKey = nil, "", shapeKey{}
}
