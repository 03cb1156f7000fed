package spec

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"fragua.dev/fragua/contract/ident"
)

// Limits on what one specification may hold.
const (
	MaxEnv       = 1000        // variables in one map
	MaxEnvBytes  = 256 << 10   // of all names and values of one map
	MaxArgBytes  = 1<<17 - 1   // of one argument or value: Linux's MAX_ARG_STRLEN
	MaxArgvBytes = 1 << 20     // of all arguments of one command
	MaxJobBytes  = 768 << 10   // of all texts of a job: with the environment of its run it fits into one event, however it is escaped
	MaxEdges     = 20_000      // of all needs of a pipeline
	MaxTimeoutMS = 604_800_000 // a week
	MaxBackoffMS = 86_400_000  // a day
	MaxRetries   = 100
)

const wantName = "want letters, digits, '.', '_' or '-', beginning with a letter or digit"

// A Fault is one thing that is wrong with a specification. Its message never
// repeats a value, which may be a secret.
type Fault struct {
	Path    string // within the specification: jobs.test.steps[0].run
	Message string // what is wrong, and what would be right
}

func (f Fault) String() string { return f.Path + ": " + f.Message }

type faults []Fault

func (f *faults) add(path, format string, args ...any) {
	*f = append(*f, Fault{path, fmt.Sprintf(format, args...)})
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,254}$`)

// reserved are the variables that the platform sets by itself.
func reserved(name string) bool {
	return strings.HasPrefix(name, "FRAGUA_") || name == "CI"
}

// Validate returns everything that is wrong with j, as a job without a pipeline.
func (j Job) Validate() []Fault {
	var f faults
	j.validate(&f, "")
	if s := j.Source; s != nil {
		for name, v := range map[string]string{"repository": s.Repository, "version": s.Version} {
			if v == "" {
				f.add("source."+name, "a job without a pipeline names the repository and the version of what it starts from")
			}
		}
	}
	return f
}

func (j Job) validate(f *faults, at string) {
	switch {
	case len(j.Command) == 0 && len(j.Steps) == 0:
		f.add(at+"command", "a job needs a command, or steps")
	case len(j.Command) > 0 && len(j.Steps) > 0:
		f.add(at+"command", "a job has either a command or steps, not both")
	case len(j.Command) > 0:
		argv(f, at+"command", j.Command)
	}
	steps(f, at+"steps", j.Steps)
	small(f, strings.TrimSuffix(at, "."), j.Env, j.Command, j.Steps)
	text(f, at+"image", j.Image, 512)
	quota(f, at+"resources", j.Resources)
	upTo(f, at+"timeout_ms", j.TimeoutMS, MaxTimeoutMS)
	upTo(f, at+"retries", int64(j.Retries), MaxRetries)
	upTo(f, at+"retry_backoff_ms", j.RetryBackoffMS, MaxBackoffMS)
	env(f, at+"env", j.Env)
	if len(j.SecretRefs) > 64 {
		f.add(at+"secret_refs", "at most 64 secrets")
	}
	for i, s := range j.SecretRefs {
		if p := fmt.Sprintf("%ssecret_refs[%d]", at, i); !envName.MatchString(s) || reserved(s) {
			f.add(p, "a secret's name is a variable's: letters, digits and '_', and not one of the platform's own")
		} else if slices.Contains(j.SecretRefs[:i], s) {
			f.add(p, "named twice")
		}
	}
	if a := j.Affinity; a != nil {
		text(f, at+"affinity.by_executor_type", a.ByExecutorType, 128)
		text(f, at+"affinity.by_zone", a.ByZone, 128)
		text(f, at+"affinity.by_pool", a.ByPool, 128)
	}
	if s := j.Source; s != nil {
		for name, v := range map[string]string{"repository": s.Repository, "name": s.Name, "version": s.Version} {
			if v != "" && !ident.Valid(v) || name == "name" && v == "" {
				f.add(at+"source."+name, "%s: which artifact to start from", wantName)
			}
		}
	}
	for i, a := range j.Artifacts {
		p := fmt.Sprintf("%sartifacts[%d]", at, i)
		if slices.ContainsFunc(j.Artifacts[:i], func(b Artifact) bool {
			return b.Name == a.Name && b.Version == a.Version && cmp.Or(b.Repository, DefaultRepository) == cmp.Or(a.Repository, DefaultRepository)
		}) {
			f.add(p+".name", "another artifact of this job has the same name")
		}
		for name, v := range map[string]string{"repository": a.Repository, "name": a.Name, "version": a.Version} {
			if v != "" && !ident.Valid(v) || name == "name" && v == "" {
				f.add(p+"."+name, wantName)
			}
		}
		if a.Path == "" || path.IsAbs(a.Path) || !local(a.Path) {
			f.add(p+".path", "want a path within the workspace, such as dist/app")
		}
	}
}

// local says whether p stays within the folder it starts from.
func local(p string) bool {
	c := path.Clean(p)
	return c != ".." && !strings.HasPrefix(c, "../") && !strings.ContainsRune(p, 0)
}

func steps(f *faults, at string, all []Step) {
	names := map[string]bool{}
	for i, s := range all {
		p := fmt.Sprintf("%s[%d]", at, i)
		switch {
		case s.Run == "" && len(s.Command) == 0:
			f.add(p, "a step needs run or command")
		case s.Run != "" && len(s.Command) > 0:
			f.add(p, "a step has either run or command, not both")
		case s.Run != "":
			text(f, p+".run", s.Run, MaxArgBytes)
		default:
			argv(f, p+".command", s.Command)
		}
		text(f, p+".name", s.Name, 128)
		name := s.shown(i)
		if names[name] {
			f.add(p+".name", "another step of this job has the same name")
		}
		names[name] = true
		env(f, p+".env", s.Env)
		upTo(f, p+".timeout_ms", s.TimeoutMS, MaxTimeoutMS)
		upTo(f, p+".retries", int64(s.Retries), MaxRetries)
		upTo(f, p+".retry_backoff_ms", s.RetryBackoffMS, MaxBackoffMS)
	}
}

// small bounds all that a job says in its own words. What else it holds is small.
func small(f *faults, at string, vars map[string]string, command []string, all []Step) {
	total := 0
	count := func(command []string, vars map[string]string) {
		for _, a := range command {
			total += len(a)
		}
		for name, v := range vars {
			total += len(name) + len(v)
		}
	}
	count(command, vars)
	for _, s := range all {
		total += len(s.Name) + len(s.Run)
		count(s.Command, s.Env)
	}
	if total > MaxJobBytes {
		f.add(at, "%d bytes of commands, scripts and variables; at most %d: bring long ones as files", total, MaxJobBytes)
	}
}

func argv(f *faults, at string, args []string) {
	total := 0
	for i, a := range args {
		total += len(a)
		text(f, fmt.Sprintf("%s[%d]", at, i), a, MaxArgBytes)
	}
	if args[0] == "" {
		f.add(at+"[0]", "the program is empty")
	}
	if total > MaxArgvBytes {
		f.add(at, "%d bytes of arguments; at most %d", total, MaxArgvBytes)
	}
}

func text(f *faults, at, s string, limit int) {
	if len(s) > limit {
		f.add(at, "%d bytes long; at most %d", len(s), limit)
	}
	if strings.ContainsRune(s, 0) {
		f.add(at, "holds a NUL byte")
	}
}

func upTo(f *faults, at string, n, high int64) {
	if n < 0 || n > high {
		f.add(at, "want a number from 0 to %d", high)
	}
}

func quota(f *faults, at string, q Quota) {
	upTo(f, at+".cpu_m", q.CPUm, 1_024_000)
	upTo(f, at+".memory_mb", q.MemoryMB, 16_777_216)
	upTo(f, at+".gpu", q.GPU, 1024)
	upTo(f, at+".io", q.IO, 1_000_000)
}

func env(f *faults, at string, vars map[string]string) {
	if len(vars) > MaxEnv {
		f.add(at, "%d variables; at most %d", len(vars), MaxEnv)
		return
	}
	total := 0
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		v := vars[name]
		total += len(name) + len(v)
		switch {
		case !envName.MatchString(name):
			f.add(at+"."+name, "a variable's name is letters, digits and '_', not beginning with a digit")
		case reserved(name):
			f.add(at+"."+name, "CI and the names that begin with FRAGUA_ are the platform's own")
		default:
			text(f, at+"."+name, v, MaxArgBytes-256)
		}
	}
	if total > MaxEnvBytes {
		f.add(at, "%d bytes of variables; at most %d", total, MaxEnvBytes)
	}
}

// Validate returns everything that is wrong with p: its jobs, what they need and start
// from, and any circle among them.
func (p Pipeline) Validate() []Fault {
	var f faults
	if !ident.Valid(p.Name) {
		f.add("name", "want 1 to %d letters, digits, '.', '_' or '-', beginning with a letter or digit", ident.MaxLen)
	}
	env(&f, "env", p.Env)
	switch {
	case len(p.Jobs) == 0:
		f.add("jobs", "a pipeline needs at least one job")
	case len(p.Jobs) > 1000:
		f.add("jobs", "%d jobs; at most 1000", len(p.Jobs))
		return f
	}
	edges := 0
	for _, name := range slices.Sorted(maps.Keys(p.Jobs)) {
		j, at := p.Jobs[name], "jobs."+name+"."
		if !ident.Valid(name) {
			f.add("jobs."+name, "a job's name is letters, digits, '.', '_' or '-', beginning with a letter or digit")
		}
		j.Job.validate(&f, at)
		if len(j.Compensate) > 100 {
			f.add(at+"compensate", "at most 100 steps")
		}
		steps(&f, at+"compensate", j.Compensate)
		small(&f, at+"compensate", j.Env, nil, j.Compensate)
		edges += len(j.Needs)
		for i, need := range j.Needs {
			need, where := need, fmt.Sprintf("%sneeds[%d]", at, i)
			if _, ok := p.Jobs[need]; !ok {
				f.add(where, "no such job%s", didYouMean(need, slices.Sorted(maps.Keys(p.Jobs))))
			} else if slices.Contains(j.Needs[:i], need) {
				f.add(where, "named twice")
			}
		}
	}
	if edges > MaxEdges {
		f.add("jobs", "%d needs in all; at most %d", edges, MaxEdges)
		return f
	}
	p.keepers(&f)
	for _, circle := range p.circles() {
		f.add("jobs."+circle[0]+".needs", "the jobs wait for each other in a circle: %s", strings.Join(append(circle, circle[0]), " → "))
	}
	return f
}

// didYouMean proposes the name among known that is nearest to what was written.
func didYouMean(written string, known []string) string {
	if len(written) > 64 || len(known) == 0 {
		return ""
	}
	best := slices.MinFunc(known, func(a, b string) int { return cmp.Compare(distance(written, a), distance(written, b)) })
	if distance(written, best) > max(1, len(best)/3) {
		return ""
	}
	return ": did you mean " + best + "?"
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := prev
			if a[i] != b[j] {
				change++
			}
			prev = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// circles returns jobs that need each other in a circle; no job stands in two of
// them.
func (p Pipeline) circles() (found [][]string) {
	const (
		entered = 1
		left    = 2
	)
	seen, told := map[string]int{}, map[string]bool{}
	var path []string
	var visit func(string)
	visit = func(name string) {
		seen[name] = entered
		path = append(path, name)
		for _, need := range p.Jobs[name].Needs {
			_, known := p.Jobs[need]
			switch {
			case !known || seen[need] == left:
			case seen[need] == 0:
				visit(need)
			default:
				circle := slices.Clone(path[slices.Index(path, need):])
				if slices.ContainsFunc(circle, func(n string) bool { return told[n] }) {
					continue
				}
				for _, n := range circle {
					told[n] = true
				}
				found = append(found, circle)
			}
		}
		path = path[:len(path)-1]
		seen[name] = left
	}
	for _, name := range slices.Sorted(maps.Keys(p.Jobs)) {
		if seen[name] == 0 {
			visit(name)
		}
	}
	return found
}

// Normal returns j with its defaults filled in, and its command as a step.
func (j Job) Normal() Job {
	if len(j.Steps) == 0 && len(j.Command) > 0 {
		j.Steps = []Step{{Command: j.Command}}
	}
	j.Steps = NormalSteps(j.Steps)
	if j.Resources.CPUm == 0 {
		j.Resources.CPUm = DefaultCPUm
	}
	if j.Resources.MemoryMB == 0 {
		j.Resources.MemoryMB = DefaultMemoryMB
	}
	if j.TimeoutMS == 0 {
		j.TimeoutMS = DefaultTimeoutMS
	}
	if j.RetryBackoffMS == 0 {
		j.RetryBackoffMS = DefaultBackoffMS
	}
	return j
}

// shown is the name of the step with index i.
func (s Step) shown(i int) string { return cmp.Or(s.Name, fmt.Sprintf("step-%d", i+1)) }

// NormalSteps returns steps, each with a name and a backoff.
func NormalSteps(steps []Step) []Step {
	steps = slices.Clone(steps)
	for i := range steps {
		steps[i].Name = steps[i].shown(i)
		if steps[i].RetryBackoffMS == 0 {
			steps[i].RetryBackoffMS = DefaultBackoffMS
		}
	}
	return steps
}
