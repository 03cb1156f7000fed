package orchestration

import (
	"maps"
	"slices"
	"time"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

// A Pipeline is one version of a pipeline, as the API shows it.
type Pipeline struct {
	ID      ident.Pipeline `json:"pipeline_id"`
	Tenant  ident.Tenant   `json:"tenant_id"`
	Version int            `json:"version" doc:"Grows by one with each update"`
	Name    string         `json:"name"`
	Spec    spec.Pipeline  `json:"spec"`
	State   State          `json:"state,omitempty" doc:"Of its newest run"`
	LastRun ident.Run      `json:"last_run_id,omitempty"`
	Owner   string         `json:"owner,omitempty"`
	Created time.Time      `json:"created_at" doc:"When this version was made"`
}

type pipeline struct{ Pipeline }

// order returns the names of the jobs that only asks for, and of all they need,
// each after what it needs; of all jobs when only is empty.
func (p *pipeline) order(only []string) []string {
	var (
		out   []string
		seen  = map[string]bool{}
		visit func(string)
	)
	visit = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		for _, need := range p.Spec.Jobs[name].Needs {
			visit(need)
		}
		out = append(out, name)
	}
	if len(only) == 0 {
		only = slices.Sorted(maps.Keys(p.Spec.Jobs))
	}
	for _, name := range only {
		visit(name)
	}
	return out
}
