package scheduling

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

func quota(cpu, mem int64) spec.Quota { return spec.Quota{CPUm: cpu, MemoryMB: mem} }

func wants(job string, since int64, q spec.Quota) *Waiting {
	return &Waiting{Attempt: Attempt{"t", ident.Job(job), 1}, Order: Order{Since: since, Seq: since}, Ask: Ask{Resources: q}}
}

// whereabouts writes a plan as "a>n1 b>n2".
func whereabouts(o Outcome) string {
	var out []string
	for _, p := range o.Placed {
		out = append(out, string(p.Job)+">"+string(p.Node.ID))
	}
	return strings.Join(out, " ")
}

func TestPlan(t *testing.T) {
	pools := func(w *Waiting, pool string) *Waiting { w.Ask.Affinity.ByPool = pool; return w }
	urgent := func(w *Waiting) *Waiting { w.Priority = 9; return w }
	for name, c := range map[string]struct {
		nodes []Node
		queue []*Waiting
		want  string
	}{
		"nothing":            {want: ""},
		"first come":         {[]Node{{ID: "n", Total: quota(1000, 1000)}}, []*Waiting{wants("b", 2, quota(600, 1)), wants("a", 1, quota(600, 1))}, "a>n"},
		"priority":           {[]Node{{ID: "n", Total: quota(1000, 1000)}}, []*Waiting{wants("a", 1, quota(600, 1)), urgent(wants("b", 2, quota(600, 1)))}, "b>n"},
		"small ones pass":    {[]Node{{ID: "n", Total: quota(1000, 1000)}}, []*Waiting{wants("a", 1, quota(2000, 1)), wants("b", 2, quota(600, 1))}, "b>n"},
		"memory counts":      {[]Node{{ID: "n", Total: quota(1000, 10)}}, []*Waiting{wants("a", 1, quota(1, 11))}, ""},
		"best fit":           {[]Node{{ID: "big", Total: quota(4000, 4000)}, {ID: "small", Total: quota(1000, 1000)}}, []*Waiting{wants("a", 1, quota(900, 900)), wants("b", 2, quota(4000, 4000))}, "a>small b>big"},
		"gpu is kept":        {[]Node{{ID: "gpu", Total: spec.Quota{CPUm: 1000, MemoryMB: 1000, GPU: 1}}, {ID: "plain", Total: quota(1000, 1000)}}, []*Waiting{wants("a", 1, quota(100, 100))}, "a>plain"},
		"gpu and io":         {[]Node{{ID: "n", Total: spec.Quota{CPUm: 1000, GPU: 1, IO: 50}}}, []*Waiting{wants("a", 1, spec.Quota{GPU: 1, IO: 50}), wants("b", 2, spec.Quota{GPU: 1}), wants("c", 3, spec.Quota{IO: 1})}, "a>n"},
		"affinity":           {[]Node{{ID: "x", Pool: "x", Total: quota(1000, 1)}, {ID: "y", Pool: "y", Total: quota(100, 1)}}, []*Waiting{pools(wants("a", 1, quota(50, 1)), "x")}, "a>x"},
		"retired takes none": {[]Node{{ID: "n", Total: quota(1000, 1), Retired: true}}, []*Waiting{wants("a", 1, quota(1, 1))}, ""},
	} {
		s := NewSnapshot()
		for _, n := range c.nodes {
			s.SetNode(n, spec.Quota{})
		}
		for _, w := range c.queue {
			s.Add(w)
		}
		if got := whereabouts(Plan(s, 100)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestExplain(t *testing.T) {
	s := NewSnapshot()
	s.SetNode(Node{ID: "node-7", Provider: "process", Zone: "eu", Total: quota(1000, 512)}, quota(750, 0))
	s.SetNode(Node{ID: "node-8", Provider: "docker", Zone: "us", Total: quota(4000, 512)}, spec.Quota{})
	s.SetNode(Node{ID: "node-9", Provider: "process", Zone: "us", Total: quota(4000, 128), Retired: true}, spec.Quota{})
	w := wants("a", 1, quota(1000, 600))
	w.Ask.Affinity = spec.Affinity{ByExecutorType: "process", ByZone: "eu"}
	s.Add(w)
	want := []Reason{
		{"node-7", "512 memory_mb in all, 600 asked; 250 cpu_m free, 1000 asked"},
		{"node-8", "makes docker workers, process asked; is in zone us, eu asked; 512 memory_mb in all, 600 asked"},
		{"node-9", "takes no new jobs: it is being removed"},
	}
	want[0].Reason = "250 cpu_m free, 1000 asked; 512 memory_mb in all, 600 asked"
	if got := Explain(s, w); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// nodesAndQueue draws a small world in which much collides.
func nodesAndQueue(t *rapid.T) (nodes []Node, used []spec.Quota, queue []*Waiting) {
	few := func(label string) int64 { return rapid.Int64Range(0, 6).Draw(t, label) }
	zones := rapid.SampledFrom([]string{"", "a", "b"})
	for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
		n := Node{ID: ident.Node(fmt.Sprint("n", i)), Provider: zones.Draw(t, "provider"), Zone: zones.Draw(t, "zone"), Pool: zones.Draw(t, "pool"),
			Total: spec.Quota{CPUm: few("cpu"), MemoryMB: few("mem"), GPU: few("gpu"), IO: few("io")}, Retired: rapid.IntRange(0, 9).Draw(t, "retired") == 0}
		nodes = append(nodes, n)
		used = append(used, spec.Quota{CPUm: min(few("used"), n.Total.CPUm)})
	}
	for i := range rapid.IntRange(0, 20).Draw(t, "jobs") {
		queue = append(queue, drawWaiting(t, i))
	}
	return nodes, used, queue
}

func drawWaiting(t *rapid.T, i int) *Waiting {
	few := func(label string) int64 { return rapid.Int64Range(0, 3).Draw(t, label) }
	zones := rapid.SampledFrom([]string{"", "", "", "a", "b"})
	return &Waiting{
		Attempt: Attempt{"t", ident.Job(fmt.Sprint("j", i)), 1},
		Order:   Order{Priority: rapid.IntRange(0, 2).Draw(t, "priority"), Since: few("since"), Seq: int64(i)},
		Ask: Ask{Resources: spec.Quota{CPUm: few("cpu"), MemoryMB: few("mem"), GPU: few("gpu")},
			Affinity: spec.Affinity{ByExecutorType: zones.Draw(t, "type"), ByZone: zones.Draw(t, "zone"), ByPool: zones.Draw(t, "pool")}},
	}
}

func TestPlanIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, used, queue := nodesAndQueue(t)
		build := func(order []int) *Snapshot {
			s := NewSnapshot()
			for _, i := range order {
				s.SetNode(nodes[i], used[i])
			}
			for _, w := range queue {
				s.Add(w)
			}
			return s
		}
		forth := make([]int, len(nodes))
		for i := range forth {
			forth[i] = i
		}
		back := slices.Clone(forth)
		slices.Reverse(back)
		s := build(forth)
		out := Plan(s, 1000)

		if a, b, c := whereabouts(out), whereabouts(Plan(s, 1000)), whereabouts(Plan(build(back), 1000)); a != b || a != c {
			t.Fatalf("the same question has different answers: %q, %q, and with the nodes in another order %q", a, b, c)
		}
		free := map[ident.Node]spec.Quota{}
		for i, n := range nodes {
			free[n.ID] = n.Total.Minus(used[i])
		}
		placed := map[*Waiting]bool{}
		for _, p := range out.Placed {
			if placed[p.Waiting] {
				t.Fatalf("%s is placed twice", p.Job)
			}
			placed[p.Waiting] = true
			if p.Node.Retired || !p.Node.suits(&p.Ask.Affinity) {
				t.Fatalf("%s is on %s, which is not for it", p.Job, p.Node.ID)
			}
			if free[p.Node.ID] = free[p.Node.ID].Minus(p.Ask.Resources); !free[p.Node.ID].Holds(spec.Quota{}) {
				t.Fatalf("%s is oversold: %+v", p.Node.ID, free[p.Node.ID])
			}
		}
		refused := map[Ask]Refusal{}
		for _, r := range out.Refused {
			refused[r.Ask] = r
		}
		for _, w := range queue {
			for _, o := range queue {
				if w.Ask == o.Ask && w.before(o) < 0 && placed[o] && !placed[w] {
					t.Fatalf("%s, which is like %s, went before it", o.Job, w.Job)
				}
			}
			if r, told := refused[w.Ask]; placed[w] == (told && r.First.before(w) <= 0) {
				t.Fatalf("%s: placed %v, refused %v", w.Job, placed[w], told)
			}
		}
		s.Settle(out)
		for _, p := range out.Placed {
			s.Take(p.Waiting, p.Node.ID)
		}
		for _, r := range out.Refused {
			why := Explain(s, r.First)
			if len(why) != len(nodes) {
				t.Fatalf("%d reasons for %d nodes", len(why), len(nodes))
			}
			for _, reason := range why {
				if reason.Reason == "" || strings.HasPrefix(reason.Reason, "has room") {
					t.Fatalf("%s was refused, yet %s %s", r.First.Job, reason.Node, reason.Reason)
				}
			}
			if r.Never == slices.ContainsFunc(nodes, func(n Node) bool { return n.welcomes(&r.Ask) }) {
				t.Fatalf("%s: never is %v", r.First.Job, r.Never)
			}
		}
		if !s.Settled() || len(Plan(s, 1000).Placed) > 0 {
			t.Fatal("a plan that was carried out leaves something to plan")
		}
	})
}

// TestPlanMissesNothing compares plans that look only at what changed with plans
// that look at everything.
func TestPlanMissesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, used, queue := nodesAndQueue(t)
		s := NewSnapshot()
		for i, n := range nodes {
			s.SetNode(n, used[i])
		}
		waiting := map[*Waiting]bool{}
		for _, w := range queue {
			s.Add(w)
			waiting[w] = true
		}
		placed := map[*Waiting]ident.Node{}
		next := len(queue)
		pick := func(of []*Waiting) *Waiting {
			slices.SortFunc(of, func(a, b *Waiting) int { return int(a.Seq - b.Seq) })
			return of[rapid.IntRange(0, len(of)-1).Draw(t, "which")]
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch what := rapid.IntRange(0, 7).Draw(t, "what"); {
			case what == 0:
				w := drawWaiting(t, next)
				next++
				s.Add(w)
				waiting[w] = true
			case what == 1 && len(waiting) > 0:
				w := pick(slices.Collect(maps.Keys(waiting)))
				if !s.Remove(w) {
					t.Fatal("what waits cannot be removed")
				}
				delete(waiting, w)
			case what == 2 && len(placed) > 0:
				w := pick(slices.Collect(maps.Keys(placed)))
				s.Give(placed[w], w.Ask.Resources)
				delete(placed, w)
			case what == 3:
				s.Hold(rapid.Int64Range(0, 4).Draw(t, "before"))
			case what == 4:
				s.Resume(rapid.Bool().Draw(t, "afresh"))
			case what == 5 && len(nodes) > 0 && rapid.IntRange(0, 3).Draw(t, "drop") == 0:
				n := nodes[0]
				nodes = nodes[1:]
				s.DropNode(n.ID)
				maps.DeleteFunc(placed, func(_ *Waiting, on ident.Node) bool { return on == n.ID })
			default:
				limit := rapid.IntRange(1, 5).Draw(t, "limit")
				out := Plan(s, limit)
				all := everything(s)
				if a, b := whereabouts(out), whereabouts(Plan(all, limit)); a != b {
					t.Fatalf("looking at what changed: %q; at everything: %q", a, b)
				}
				s.Settle(out)
				for _, p := range out.Placed {
					if rapid.IntRange(0, 4).Draw(t, "denied") == 0 {
						s.Deny(p.Waiting, p.Node.ID, "no", 2)
						continue
					}
					s.Take(p.Waiting, p.Node.ID)
					delete(waiting, p.Waiting)
					placed[p.Waiting] = p.Node.ID
				}
			}
			if s.Queued() != len(waiting) {
				t.Fatalf("%d are queued, want %d", s.Queued(), len(waiting))
			}
		}
	})
}

// TestPlanOfManyShapes is the same in a world that is too big to be drawn, where
// one node is wanted by hundreds of shapes.
func TestPlanOfManyShapes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	s := world(20, 2000, 700, r)
	var running []Placement
	for round := range 150 {
		out := Plan(s, 10_000)
		if a, b := whereabouts(out), whereabouts(Plan(everything(s), 10_000)); a != b {
			t.Fatalf("round %d: looking at what changed: %q; at everything: %q", round, a, b)
		}
		s.Settle(out)
		for _, p := range out.Placed {
			s.Take(p.Waiting, p.Node.ID)
			running = append(running, p)
		}
		for range 1 + r.IntN(9) {
			i := r.IntN(len(running))
			s.Give(running[i].Node.ID, running[i].Ask.Resources)
			running = slices.Delete(running, i, i+1)
		}
	}
}

// everything returns s with nothing settled.
func everything(s *Snapshot) *Snapshot {
	c := *s
	c.fresh, c.stirred = map[*shape]bool{}, map[int]bool{}
	for _, sh := range s.shapes {
		c.fresh[sh] = true
	}
	for i := range s.nodes {
		c.stirred[i] = true
	}
	return &c
}

// TestStarving has small jobs come for ever, which would fill each gap before the
// big one fits.
func TestStarving(t *testing.T) {
	s := NewSnapshot()
	s.SetNode(Node{ID: "n", Total: quota(4, 4)}, spec.Quota{})
	s.SetNode(Node{ID: "tiny", Total: quota(1, 1)}, spec.Quota{})
	carry := func() (jobs []string) {
		out := Plan(s, 100)
		s.Settle(out)
		for _, p := range out.Placed {
			s.Take(p.Waiting, p.Node.ID)
			jobs = append(jobs, string(p.Job))
		}
		return jobs
	}
	for i := range int64(4) {
		s.Add(wants(fmt.Sprint("small", i), i, quota(1, 1)))
	}
	if got := carry(); len(got) != 4 { // one on tiny, three on n
		t.Fatalf("placed %v", got)
	}
	big := wants("big", 10, quota(4, 4))
	s.Add(big)
	s.Hold(5)
	if s.held != nil {
		t.Fatal("a node is held for one that has not waited long enough")
	}
	s.Hold(11)
	for i := range int64(3) {
		s.Add(wants(fmt.Sprint("later", i), 20+i, quota(1, 1)))
	}
	for range 3 {
		if got := carry(); len(got) > 0 {
			t.Fatalf("%v were placed on a node that is held", got)
		}
		if got := Explain(s, wants("later9", 30, quota(1, 1)))[0].Reason; !strings.HasPrefix(got, "kept free for a bigger job") {
			t.Fatalf("the node that is held: %q", got)
		}
		for _, r := range Explain(s, big) { // the other side
			if kept := strings.HasSuffix(r.Reason, "; what comes free is kept for it"); kept != (r.Node == "n") {
				t.Fatalf("%s, of the job that a node is held for: %q", r.Node, r.Reason)
			}
		}
		s.Give("n", quota(1, 1))
	}
	if got := carry(); !slices.Equal(got, []string{"big"}) || s.held != nil {
		t.Fatalf("once the node is empty %v were placed, and it is held for %v", got, s.held)
	}
	s.Give("n", quota(4, 4))
	if got := carry(); len(got) != 3 {
		t.Fatalf("after the big one only %v were placed", got)
	}
}

func world(nodes, jobs, shapes int, r *rand.Rand) *Snapshot {
	s := NewSnapshot()
	for i := range nodes {
		s.SetNode(Node{ID: ident.Node(fmt.Sprintf("node-%04d", i)), Provider: "process", Zone: fmt.Sprint("z", i%4), Pool: fmt.Sprint("p", i%3),
			Total: spec.Quota{CPUm: 16000, MemoryMB: 65536, IO: 1000}}, spec.Quota{})
	}
	for i := range jobs {
		k := i % shapes
		w := &Waiting{Attempt: Attempt{"t", ident.Job(fmt.Sprintf("job_%06d", i)), 1}, Order: Order{r.IntN(3), int64(i), int64(i)},
			Ask: Ask{Resources: spec.Quota{CPUm: 2000 + int64(k%97)*10, MemoryMB: 4096 + int64(k)}}}
		switch k % 5 {
		case 0:
			w.Ask.Affinity.ByZone = fmt.Sprint("z", k%4)
		case 1:
			w.Ask.Affinity.ByPool = fmt.Sprint("p", k%3)
		}
		s.Add(w)
	}
	return s
}
