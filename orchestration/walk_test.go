package orchestration

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"fragua.dev/fragua/contract/spec"
)

// drawGraph draws a graph without circles, its members in any order.
func drawGraph(t *rapid.T) []Member {
	var all []Member
	for i := range rapid.IntRange(1, 8).Draw(t, "jobs") {
		m := Member{Name: fmt.Sprintf("j%d", i)}
		for k := range i {
			if rapid.IntRange(0, 2).Draw(t, "needs") == 0 {
				m.Needs = append(m.Needs, fmt.Sprintf("j%d", k))
			}
		}
		all = append(all, m)
	}
	return rapid.Permutation(all).Draw(t, "order")
}

// outcomes walks a graph to its end, with the ends that fate draws, and returns the
// states. It fails when something is released too early, or twice, or never.
func outcomes(t *rapid.T, graph []Member, fate func(string) State) map[string]State {
	states, waiting, asked := map[string]State{}, map[string]bool{}, map[string]bool{}
	for _, m := range graph {
		states[m.Name], waiting[m.Name] = Pending, len(m.Needs) > 0
		asked[m.Name] = len(m.Needs) == 0
	}
	for {
		var open []string
		for name, a := range asked {
			if a && states[name] == Pending {
				open = append(open, name)
			}
		}
		if len(open) == 0 {
			break
		}
		slices.Sort(open)
		ended := rapid.SampledFrom(open).Draw(t, "ends next")
		states[ended] = fate(ended)
		before := maps.Clone(states)
		d := walk(graph, states, waiting)
		if !maps.Equal(before, states) {
			t.Fatal("walk changed what it was given")
		}
		for _, m := range graph {
			blamed, released := d.skip[m.Name], slices.Contains(d.release, m.Name)
			if (blamed != "" || released) && !waiting[m.Name] {
				t.Fatalf("%s is decided about twice", m.Name)
			}
			if released && slices.ContainsFunc(m.Needs, func(n string) bool { return states[n] != Succeeded }) {
				t.Fatalf("%s is released before what it needs", m.Name)
			}
			if blamed != "" && !slices.Contains(m.Needs, blamed) {
				t.Fatalf("%s is skipped for %s, which it does not need", m.Name, blamed)
			}
		}
		for name := range d.skip {
			states[name], waiting[name] = Cancelled, false
		}
		for _, name := range d.release {
			waiting[name], asked[name] = false, true
		}
	}
	return states
}

func TestAGraphIsWalkedToItsEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		graph := drawGraph(t)
		states := outcomes(t, graph, func(string) State {
			return rapid.SampledFrom([]State{Succeeded, Succeeded, Failed, Terminated}).Draw(t, "fate")
		})
		for _, m := range graph {
			bad := slices.ContainsFunc(m.Needs, func(n string) bool { return states[n] != Succeeded })
			if !states[m.Name].ended() || bad != (states[m.Name] == Cancelled) {
				t.Fatalf("%s is %s in %v", m.Name, states[m.Name], states)
			}
		}
		if want := aggregate(states); !want.ended() {
			t.Fatalf("all jobs have ended, and the run is %s", want)
		}
	})
}

func TestARunThatIsTriedAgainRunsWhatFailedAndWhatNeedsIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		graph := drawGraph(t)
		states := outcomes(t, graph, func(string) State {
			return rapid.SampledFrom([]State{Succeeded, Succeeded, Failed}).Draw(t, "fate")
		})
		undone := map[string]bool{}
		for name, s := range states {
			undone[name] = s == Succeeded && rapid.IntRange(0, 4).Draw(t, "undone") == 0
		}
		again := rerun(graph, states, undone)
		for _, m := range graph {
			// Its own end, or one of those it needs.
			want := states[m.Name] != Succeeded || undone[m.Name] ||
				slices.ContainsFunc(m.Needs, func(n string) bool { return again[n] })
			if again[m.Name] != want {
				t.Fatalf("%s runs again: %v, want %v", m.Name, again[m.Name], want)
			}
		}
	})
}

func TestAggregate(t *testing.T) {
	for _, c := range []struct {
		states []State
		want   State
	}{
		{[]State{Pending, Pending}, Pending},
		{[]State{Pending, Succeeded}, Running},
		{[]State{Scheduled, Failed}, Running},
		{[]State{Running, Cancelled}, Running},
		{[]State{Succeeded, Succeeded}, Succeeded},
		{[]State{Succeeded, Failed, Terminated, Cancelled}, Failed},
		{[]State{Succeeded, Terminated, Cancelled}, Terminated},
		{[]State{Succeeded, Cancelled}, Cancelled},
	} {
		states := map[string]State{}
		for i, s := range c.states {
			states[fmt.Sprint(i)] = s
		}
		if got := aggregate(states); got != c.want {
			t.Errorf("%v make %s, want %s", c.states, got, c.want)
		}
	}
}

func TestACircleIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		graph := drawGraph(t)
		p := spec.Pipeline{Name: "p", Jobs: map[string]spec.PipelineJob{}}
		for _, m := range graph {
			p.Jobs[m.Name] = spec.PipelineJob{Job: spec.Job{Command: []string{"x"}}, Needs: m.Needs}
		}
		if f := p.Validate(); f != nil {
			t.Fatalf("a graph without circles is refused: %v", f)
		}
		// One more edge, from a job to one that needs it, by whatever way.
		names := slices.Sorted(maps.Keys(p.Jobs))
		last := rapid.SampledFrom(names).Draw(t, "last")
		pp := pipeline{Pipeline{Spec: p}}
		first := rapid.SampledFrom(pp.order([]string{last})).Draw(t, "first")
		j := p.Jobs[first]
		if slices.Contains(j.Needs, last) {
			return
		}
		j.Needs = append(slices.Clone(j.Needs), last)
		p.Jobs[first] = j
		if f := p.Validate(); f == nil {
			t.Fatalf("%s needs %s, which needs it: accepted", first, last)
		}
	})
}

func TestThePipelineOfACircleIsA422(t *testing.T) {
	h := newHouse(t)
	h.want(422, "POST", "/pipelines", `{"spec":{"name":"p","jobs":{"a":{"command":["x"],"needs":["b"]},"b":{"command":["x"],"needs":["a"]}}}}`, nil)
	var page struct{ Items []Pipeline }
	h.want(200, "GET", "/pipelines", "", &page)
	if len(page.Items) != 0 {
		t.Error("it was kept")
	}
}
