package pipelinefile

import (
	"math"
	"slices"
	"strings"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

func (d *decoder) pipeline(n *node) spec.Pipeline {
	var p spec.Pipeline
	if n.kind != mapping {
		d.wrong(n, where{}, "a mapping: name: build, and below it jobs:")
		d.doubt["name"], d.doubt["jobs"] = true, true
		return p
	}
	d.fields(n, where{}, pipelineForm, func(key string, v *node, w where) {
		switch key {
		case "name":
			p.Name = d.text(v, w)
		case "env":
			p.Env = d.env(v, w)
		case "jobs":
			p.Jobs = d.jobs(v, w)
		}
	})
	if n.get("name") == nil {
		d.fault(n.pos, where{}, "the pipeline has no name; write name: build, or what it does, at the top")
		d.doubt["name"] = true
	}
	return p
}

func (d *decoder) jobs(n *node, w where) map[string]spec.PipelineJob {
	if n.kind != mapping {
		d.wrong(n, w, "a mapping of names to jobs")
		return nil
	}
	out, seen := map[string]spec.PipelineJob{}, map[string]pos{}
	for _, p := range n.pairs {
		at := w.key(p.key, p.key)
		at.shown = shown(at.shown)
		if first, twice := seen[p.key]; twice {
			d.fault(p.pos, at, "stands twice; the first is in line %d", first.line)
			continue
		}
		seen[p.key] = p.pos
		if !ident.Valid(p.key) {
			d.fault(p.pos, at, "a job's name is letters, digits, '.', '_' or '-', beginning with a letter or digit")
			d.doubt[w.spec] = true
		}
		d.note(p.pos, at)
		out[p.key] = d.job(p.val, at)
	}
	return out
}

func (d *decoder) job(n *node, w where) spec.PipelineJob {
	var j spec.PipelineJob
	var run *spec.Step
	if n.kind == null {
		d.fault(d.places[w.spec].pos, w, "the job is empty; it needs run, command or steps")
		d.doubt[w.spec] = true
		return j
	}
	d.fields(n, w, jobForm, func(key string, v *node, w where) {
		switch key {
		case "image":
			j.Image = d.text(v, w)
		case "needs":
			j.Needs = d.texts(v, w, true, "a job's name, or a list of them")
		case "steps":
			j.Steps = d.steps(v, w)
		case "run":
			run = &spec.Step{Run: d.text(v, w)}
		case "command":
			j.Command = d.command(v, w)
		case "env":
			j.Env = d.env(v, w)
		case "secrets", "secret_refs":
			d.twin(n, w, key, "secrets", "secret_refs")
			w.spec = parent(w.spec) + ".secret_refs"
			d.note(v.pos, w)
			j.SecretRefs = d.texts(v, w, true, "a secret's name, or a list of them")
		case "resources":
			j.Resources = d.quota(v, w)
		case "timeout", "timeout_ms":
			j.TimeoutMS = d.timeout(n, v, w, key)
		case "retries":
			j.Retries, j.RetryBackoffMS = d.retries(n, v, w, j.RetryBackoffMS)
		case "retry_backoff_ms":
			j.RetryBackoffMS = d.milliseconds(v, w)
		case "affinity":
			j.Affinity = d.affinity(v, w)
		case "artifacts":
			j.Artifacts = d.artifacts(v, w)
		case "compensate":
			j.Compensate = d.steps(v, w)
		case "source":
			j.Source = d.source(v, w)
		}
	})
	if run == nil {
		return j
	}
	short := d.places[w.spec+".run"]
	switch {
	case n.get("steps") != nil:
		d.fault(short.pos, where{shown: short.shown}, "a job has either run or steps, not both: make it one of the steps")
	case n.get("command") != nil:
		d.fault(short.pos, where{shown: short.shown}, "a job has either run or command, not both")
	default:
		j.Steps = []spec.Step{*run}
		d.places[w.spec+".steps[0]"], d.places[w.spec+".steps[0].run"] = short, short
	}
	return j
}

// twin notes that a thing is said in both of its names.
func (d *decoder) twin(n *node, w where, key, one, other string) {
	if key == other && n.get(one) != nil {
		d.fault(d.places[w.spec].pos, w, "is the same as %s; give one of them", one)
	}
}

func (d *decoder) steps(n *node, w where) []spec.Step {
	var out []spec.Step
	for i, item := range d.list(n, w, false, "a list of steps, each beginning with a dash: - run: make") {
		at := w.index(i)
		d.note(item.pos, at)
		if item.kind == scalar {
			d.fault(item.pos, at, "a step is a mapping: write - run: before the command")
			d.doubt[at.spec] = true
		} else {
			out = append(out, d.step(item, at))
			continue
		}
		out = append(out, spec.Step{})
	}
	return out
}

func (d *decoder) step(n *node, w where) spec.Step {
	var s spec.Step
	d.fields(n, w, stepForm, func(key string, v *node, w where) {
		switch key {
		case "name":
			s.Name = d.text(v, w)
		case "run":
			s.Run = d.text(v, w)
		case "command":
			s.Command = d.command(v, w)
		case "env":
			s.Env = d.env(v, w)
		case "timeout", "timeout_ms":
			s.TimeoutMS = d.timeout(n, v, w, key)
		case "retries":
			s.Retries, s.RetryBackoffMS = d.retries(n, v, w, s.RetryBackoffMS)
		case "retry_backoff_ms":
			s.RetryBackoffMS = d.milliseconds(v, w)
		}
	})
	return s
}

func (d *decoder) command(n *node, w where) []string {
	return d.texts(n, w, false, "a list of the program and its arguments, such as [make, package]; a line for the shell goes into run")
}

func (d *decoder) timeout(n, v *node, w where, key string) int64 {
	d.twin(n, w, key, "timeout", "timeout_ms")
	if key == "timeout_ms" {
		return d.milliseconds(v, w)
	}
	w.spec = parent(w.spec) + ".timeout_ms"
	d.note(v.pos, w)
	return d.duration(v, w)
}

// retries reads a number, or a number and the wait before the first of them.
func (d *decoder) retries(n, v *node, w where, backoff int64) (int, int64) {
	if v.kind != mapping {
		if v.kind != scalar {
			d.wrong(v, w, "a number, or {limit: 2, backoff: 1s}")
			return 0, backoff
		}
		return clamp(d.whole(v, w)), backoff
	}
	limit := 0
	d.fields(v, w, retryForm, func(key string, v *node, at where) {
		switch key {
		case "limit":
			at.spec = w.spec
			d.note(v.pos, at)
			limit = clamp(d.whole(v, at))
		case "backoff":
			at.spec = parent(w.spec) + ".retry_backoff_ms"
			d.note(v.pos, at)
			backoff = d.duration(v, at)
			if n.get("retry_backoff_ms") != nil {
				d.fault(v.pos, at, "is the same as retry_backoff_ms; give one of them")
			}
		}
	})
	if v.get("limit") == nil && !d.doubt[w.spec] {
		d.fault(v.pos, w, "how often? add limit: 2")
	}
	return limit, backoff
}

func clamp(n int64) int { return int(min(n, math.MaxInt32)) }

func (d *decoder) quota(n *node, w where) spec.Quota {
	var q spec.Quota
	d.fields(n, w, quotaForm, func(key string, v *node, w where) {
		switch key {
		case "cpu_m":
			q.CPUm = d.whole(v, w)
		case "memory_mb":
			q.MemoryMB = d.whole(v, w)
		case "gpu":
			q.GPU = d.whole(v, w)
		case "io":
			q.IO = d.whole(v, w)
		}
	})
	return q
}

func (d *decoder) affinity(n *node, w where) *spec.Affinity {
	a := &spec.Affinity{}
	d.fields(n, w, affinityForm, func(key string, v *node, w where) {
		switch key {
		case "by_executor_type":
			a.ByExecutorType = d.text(v, w)
		case "by_zone":
			a.ByZone = d.text(v, w)
		case "by_pool":
			a.ByPool = d.text(v, w)
		}
	})
	return a
}

func (d *decoder) artifacts(n *node, w where) []spec.Artifact {
	var out []spec.Artifact
	for i, item := range d.list(n, w, false, "a list of artifacts: [{name: app, path: dist/app}]") {
		var a spec.Artifact
		at := w.index(i)
		d.note(item.pos, at)
		d.fields(item, at, artifactForm, func(key string, v *node, w where) {
			switch key {
			case "name":
				a.Name = d.text(v, w)
			case "path":
				a.Path = d.text(v, w)
			case "version":
				a.Version = d.text(v, w)
			case "repository":
				a.Repository = d.text(v, w)
			}
		})
		out = append(out, a)
	}
	return out
}

func (d *decoder) source(n *node, w where) *spec.Source {
	s := &spec.Source{}
	d.fields(n, w, sourceForm, func(key string, v *node, w where) {
		switch key {
		case "repository":
			s.Repository = d.text(v, w)
		case "name":
			s.Name = d.text(v, w)
		case "version":
			s.Version = d.text(v, w)
		}
	})
	return s
}

// judge adds the faults of the specification itself, where they stand in the file.
// What follows from a fault that was told already is left out.
func (d *decoder) judge(p spec.Pipeline, top pos) {
	told := d.faults
	for _, f := range p.Validate() {
		path := f.Path
		at, exact := d.places[path]
		for known := exact; !known && path != ""; {
			path = parent(path)
			at, known = d.places[path]
		}
		if path == "" {
			at = place{pos: top}
		}
		job, from := strings.CutSuffix(f.Path, ".source.version") // which follows from the job's needs, too
		if d.doubt[f.Path] || d.doubt[path] || exact && within(told, at.shown) || from && !exact && d.doubt[job] {
			continue
		}
		missing := strings.TrimPrefix(f.Path, path)
		d.fault(at.pos, where{shown: strings.TrimPrefix(at.shown+missing, ".")}, "%s", inWords(f))
	}
}

// inWords says in the file's words what a fault says in the API's.
func inWords(f spec.Fault) string {
	switch {
	case strings.HasSuffix(f.Path, ".timeout_ms"):
		return "too long; at most a week, 168h"
	case strings.HasSuffix(f.Path, ".retry_backoff_ms"):
		return "too long; at most a day, 24h"
	}
	return f.Message
}

// within says whether one of faults stands at a place, or within it.
func within(faults []Fault, path string) bool {
	return slices.ContainsFunc(faults, func(f Fault) bool {
		rest, ok := strings.CutPrefix(f.Path, path)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}
