package spec

import (
	"cmp"
	"maps"
	"slices"

	"fragua.dev/fragua/contract/ident"
)

// Keepers returns, for each job whose source leaves out its version, the name of the
// job that keeps what it means: one that it needs, directly or through others. Jobs in
// which Validate finds fault with that are left out.
func (p Pipeline) Keepers() map[string]string { return p.keepers(&faults{}) }

func (p Pipeline) keepers(f *faults) map[string]string {
	open := func(name string) bool {
		s := p.Jobs[name].Source
		return s != nil && s.Version == "" && ident.Valid(s.Name) && (s.Repository == "" || ident.Valid(s.Repository))
	}
	names := slices.Sorted(maps.Keys(p.Jobs))
	if !slices.ContainsFunc(names, open) {
		return nil
	}
	type key struct{ repository, name string }
	number, needs, kept := map[string]int{}, make([][]int, len(names)), map[key][]int{}
	for i, name := range names {
		number[name] = i
		for _, a := range p.Jobs[name].Artifacts {
			k := key{cmp.Or(a.Repository, p.Name), a.Name}
			if all := kept[k]; len(all) < 2 || all[len(all)-2] != i { // a third of one job tells no more
				kept[k] = append(all, i)
			}
		}
	}
	for i, name := range names {
		for _, need := range p.Jobs[name].Needs {
			n, known := number[need]
			if !known {
				n = -1
			}
			needs[i] = append(needs[i], n)
		}
	}
	out := map[string]string{}
	for i, name := range names {
		if !open(name) {
			continue
		}
		s, at := p.Jobs[name].Source, "jobs."+name+".source.version"
		needed, whole := reach(needs, i)
		var mine, others []int
		for _, k := range kept[key{cmp.Or(s.Repository, p.Name), s.Name}] {
			if needed[k] {
				mine = append(mine, k)
			} else if k != i {
				others = append(others, k)
			}
		}
		switch {
		case len(mine) == 1:
			out[name] = names[mine[0]]
		case len(mine) > 1 && mine[0] == mine[1]:
			f.add(at, "%s keeps more than one artifact of this name: say which version", names[mine[0]])
		case len(mine) > 1:
			f.add(at, "both %s and %s keep an artifact of this name: say which version, or give them different names", names[mine[0]], names[mine[1]])
		case !whole: // a need that is not known may be meant to keep it
		case len(others) > 0:
			f.add(at, "%s keeps this artifact, and is not among what the job needs: add it to needs, or say which version", names[others[0]])
		default:
			f.add(at, "no job that it needs keeps this artifact: say which version, or need the job that keeps it")
		}
	}
	return out
}

// reach says which jobs i needs, directly or through others, circles or not, and
// whether all of them are known: -1 is one that is not.
func reach(needs [][]int, i int) (needed []bool, whole bool) {
	needed, whole = make([]bool, len(needs)), true
	for open := []int{i}; len(open) > 0; {
		j := open[len(open)-1]
		open = open[:len(open)-1]
		for _, k := range needs[j] {
			if k < 0 {
				whole = false
			} else if !needed[k] {
				needed[k] = true
				open = append(open, k)
			}
		}
	}
	return needed, whole
}
