package scheduling

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"fragua.dev/fragua/contract/spec"
)

// Explain returns, for each node, why w does not run there, in the order of the
// nodes' ids. It is empty only when there are no nodes.
func Explain(s *Snapshot, w *Waiting) []Reason {
	sh, at, queued := s.find(w)
	out := make([]Reason, 0, len(s.nodes))
	for i, n := range s.nodes {
		var why string
		switch {
		case queued && sh.denied[n.ID] != "":
			why = "policy: " + sh.denied[n.ID]
		default:
			why = n.objects(&w.Ask, s.free[i])
		}
		if s.heldOn == n.ID {
			mine := queued && s.heldKey == sh.shapeKey
			switch {
			case why == "" && !mine:
				why = "kept free for a bigger job that waits since " + time.Unix(0, s.held.Since).UTC().Format(time.RFC3339)
			case why != "" && mine && at == 0:
				why += "; what comes free is kept for it"
			case why != "" && mine:
				why += "; what comes free is kept for one like it that goes first"
			}
		}
		if why == "" && queued && at > 0 {
			why = fmt.Sprintf("has room; %s like it %s first", count(at, "job"), verb(at, "goes", "go"))
		}
		if why == "" && queued && sh.paused {
			why = "has room; it is tried soon, after policies said no to other nodes"
		}
		if why == "" {
			why = "has room"
		}
		out = append(out, Reason{n.ID, why})
	}
	slices.SortFunc(out, func(a, b Reason) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// objects says in words what n has against a job that asks for a, when free is
// left of it; nothing if it can take the job.
func (n *Node) objects(a *Ask, free spec.Quota) string {
	if n.Retired {
		return "takes no new jobs: it is being removed"
	}
	var why []string
	for _, k := range [...]struct{ what, has, want string }{
		{"makes %s workers, %s asked", n.Provider, a.Affinity.ByExecutorType},
		{"is in zone %s, %s asked", n.Zone, a.Affinity.ByZone},
		{"is in pool %s, %s asked", n.Pool, a.Affinity.ByPool},
	} {
		if k.want != "" && k.want != k.has {
			why = append(why, fmt.Sprintf(k.what, cmp.Or(k.has, "(none)"), k.want))
		}
	}
	free = none(free)
	for _, k := range [...]struct {
		unit              string
		total, free, want int64
	}{
		{"cpu_m", n.Total.CPUm, free.CPUm, a.Resources.CPUm},
		{"memory_mb", n.Total.MemoryMB, free.MemoryMB, a.Resources.MemoryMB},
		{"gpu", n.Total.GPU, free.GPU, a.Resources.GPU},
		{"io", n.Total.IO, free.IO, a.Resources.IO},
		{"workers", n.Total.Workers, free.Workers, a.Resources.Workers},
	} {
		switch {
		case k.want > k.total:
			why = append(why, fmt.Sprintf("%d %s in all, %d asked", k.total, k.unit, k.want))
		case k.want > k.free:
			why = append(why, fmt.Sprintf("%d %s free, %d asked", k.free, k.unit, k.want))
		}
	}
	return strings.Join(why, "; ")
}

// Position returns how many attempts go before w, and whether w waits at all.
func (s *Snapshot) Position(w *Waiting) (ahead int, ok bool) {
	if _, _, ok = s.find(w); !ok {
		return 0, false
	}
	for _, sh := range s.shapes {
		i, _ := slices.BinarySearchFunc(sh.jobs, w, (*Waiting).before)
		ahead += i
	}
	return ahead, true
}

// never says in words why no node can ever take a.
func (s *Snapshot) never(a Ask) string {
	if len(s.nodes) == 0 {
		return "there are no nodes"
	}
	if len(s.nodes) == 1 {
		return fmt.Sprintf("the only node cannot take it, however empty: %s: %s", s.nodes[0].ID, s.nodes[0].objects(&a, s.nodes[0].Total))
	}
	// The node that comes nearest tells most.
	best := slices.MinFunc(s.nodes, func(x, y *Node) int {
		return cmp.Or(cmp.Compare(strings.Count(x.objects(&a, x.Total), ";"), strings.Count(y.objects(&a, y.Total), ";")), cmp.Compare(x.ID, y.ID))
	})
	return fmt.Sprintf("none of %d nodes can take it, however empty; %s comes nearest: %s", len(s.nodes), best.ID, best.objects(&a, best.Total))
}

func count(n int, what string) string { return fmt.Sprintf("%d %s", n, what+verb(n, "", "s")) }

func verb(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
