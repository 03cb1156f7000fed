package scheduling

import (
	"container/heap"
	"slices"
	"strconv"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

// Policy names how places are found; it stands in every assignment.
const Policy = "fifo-best-fit"

// A Placement gives an attempt to a node.
type Placement struct {
	*Waiting
	Node *Node
}

// A Refusal says that the next attempt of a shape, and so every other of it,
// fits on no node. [Explain] tells why, node by node.
type Refusal struct {
	Ask   Ask
	First *Waiting
	Jobs  int  // how many of the shape wait on
	Never bool // not on any node, however empty

	key shapeKey
}

// An Outcome is what a plan decided.
type Outcome struct {
	Placed  []Placement // in the order of the queue
	Refused []Refusal   // shapes that no plan had looked at before
	Whole   bool        // false: the limit was reached, and there may be more
}

// Plan decides which of the attempts that wait gets which node, at most limit of
// them. It changes nothing and is the same for the same snapshot.
//
// Attempts are looked at by priority and then by age. One that fits on no node is
// passed over, so that later ones that are smaller, or want other nodes, need not
// wait for it; but nothing of the same shape goes before it. Among the nodes that
// can take it an attempt gets the one where least would be left over, so that big
// jobs find whole nodes; equals are told apart by a hash of the attempt and the
// node, which spreads load and can be replayed.
func Plan(s *Snapshot, limit int) Outcome {
	var out Outcome
	p := planner{Snapshot: s, free: slices.Clone(s.free)}
	var l line
	for sh := range s.fresh {
		if !sh.paused {
			l = append(l, cursorOf(sh, true))
		}
	}
	if len(s.stirred) > 0 {
		var most spec.Quota // of what a stirred node has left
		for i := range s.stirred {
			p.stir = append(p.stir, i)
			f := p.free[i]
			most = spec.Quota{CPUm: max(most.CPUm, f.CPUm), MemoryMB: max(most.MemoryMB, f.MemoryMB), GPU: max(most.GPU, f.GPU), IO: max(most.IO, f.IO), Workers: max(most.Workers, f.Workers)}
		}
		for k, q := range s.asks {
			if sh := s.shapes[k]; most.Holds(q) && !sh.paused && !s.fresh[sh] && p.anyStirred(sh) {
				l = append(l, cursorOf(sh, false))
			}
		}
	}
	heap.Init(&l)
	for vain := 0; len(l) > 0; {
		if vain >= max(64, len(l)/16) {
			// Most of what fitted at first does so no more. It is quicker to throw
			// all of that out than to take it one by one from the head of the line.
			l = slices.DeleteFunc(l, func(c cursor) bool { return !c.fresh && !p.anyStirred(c.shape) })
			heap.Init(&l)
			vain = 0
			continue
		}
		if len(out.Placed) == limit {
			return out
		}
		c := &l[0]
		w := c.jobs[c.next]
		i := p.pick(c, w)
		if i < 0 {
			if c.fresh {
				out.Refused = append(out.Refused, Refusal{Ask: c.ask, First: w, Jobs: len(c.jobs) - c.next, Never: !s.Possible(c.ask), key: c.shapeKey})
			}
			heap.Pop(&l)
			vain++
			continue
		}
		p.free[i] = p.free[i].Minus(w.Ask.Resources)
		out.Placed = append(out.Placed, Placement{w, s.nodes[i]})
		if c.next++; c.next == len(c.jobs) {
			heap.Pop(&l)
		} else {
			c.head = c.jobs[c.next].Order
			heap.Fix(&l, 0)
		}
	}
	out.Whole = true
	return out
}

// Possible says whether some node, if it were empty, could take a.
func (s *Snapshot) Possible(a Ask) bool {
	return slices.ContainsFunc(s.nodes, func(n *Node) bool { return n.welcomes(&a) })
}

// A planner is a snapshot with the placements of one plan carried out.
type planner struct {
	*Snapshot
	free []spec.Quota
	stir []int
}

// takes says whether node i can take an attempt of sh now.
func (p *planner) takes(i int, sh *shape) bool {
	if !p.free[i].Holds(sh.ask.Resources) {
		return false
	}
	n := p.nodes[i]
	if n.Retired || !n.suits(&sh.ask.Affinity) || p.heldOn == n.ID && p.heldKey != sh.shapeKey {
		return false
	}
	if sh.denied == nil {
		return true
	}
	_, no := sh.denied[n.ID]
	return !no
}

func (p *planner) anyStirred(sh *shape) bool {
	for _, i := range p.stir {
		if p.takes(i, sh) {
			return true
		}
	}
	return false
}

// pick returns the node for w, which goes first in its shape, or -1.
func (p *planner) pick(c *cursor, w *Waiting) int {
	sh := c.shape
	var (
		best   = -1
		least  int64
		chance uint64
		seed   = hash(hash(hashSeed, string(w.Job)), strconv.Itoa(w.N))
	)
	look := func(i int) {
		if !p.takes(i, sh) {
			return
		}
		n := p.nodes[i]
		left := n.left(p.free[i].Minus(sh.ask.Resources))
		if best >= 0 && left > least {
			return
		}
		lot := mix(seed ^ n.hash)
		if best < 0 || left < least || lot < chance || lot == chance && n.ID < p.nodes[best].ID {
			best, least, chance = i, left, lot
		}
	}
	if c.fresh {
		for i := range p.nodes {
			look(i)
		}
	} else {
		for _, i := range p.stir {
			look(i)
		}
	}
	return best
}

// A cursor walks through a shape.
type cursor struct {
	*shape
	next  int
	fresh bool  // to be looked at on all nodes
	head  Order // of jobs[next]: at hand, because it is compared so often
}

func cursorOf(sh *shape, fresh bool) cursor { return cursor{sh, 0, fresh, sh.jobs[0].Order} }

// A line is a heap of shapes by whose next attempt goes first.
type line []cursor

func (l line) Len() int           { return len(l) }
func (l line) Less(i, j int) bool { return l[i].head.compare(&l[j].head) < 0 }
func (l line) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *line) Push(x any)        { *l = append(*l, x.(cursor)) }
func (l *line) Pop() any {
	last := len(*l) - 1
	c := (*l)[last]
	*l = (*l)[:last]
	return c
}

// A Reason is why one node does not take an attempt.
type Reason struct {
	Node   ident.Node `json:"node_id"`
	Reason string     `json:"reason" doc:"For people: 250 cpu_m free, 1000 asked"`
}
