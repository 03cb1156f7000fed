package orchestration

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"fragua.dev/fragua/contract/spec"
)

// wantSource fails the test when a job of the run starts from something else.
func (h *house) wantSource(name, want string) {
	h.t.Helper()
	if s := h.job(h.member(name)).Spec.Source; s == nil || spec.ArtifactRef(*s).String() != want {
		h.t.Errorf("%s starts from %v, want %s", name, s, want)
	}
}

// TestASourceWithoutAVersionIsWhatTheRunKeeps tries a run again before and after the
// job that keeps it has succeeded.
func TestASourceWithoutAVersionIsWhatTheRunKeeps(t *testing.T) {
	h, _ := aRun(t, `"build":{"command":["x"],"artifacts":[{"name":"app","path":"out"},{"name":"app","repository":"q","version":"1.0","path":"out"}]},
		"test":{"command":["x"],"needs":["build"]},
		"package":{"command":["x"],"needs":["test"],"source":{"name":"app"}},
		"other":{"command":["x"],"needs":["build"],"source":{"repository":"q","name":"app"}},
		"given":{"command":["x"],"source":{"name":"app","version":"7"}}`)
	want := func(app string) {
		t.Helper()
		h.wantSource("package", "p/app/"+app)
		h.wantSource("other", "q/app/1.0")
		h.wantSource("given", "p/app/7")
	}
	again := func() { h.want(200, "POST", "/runs/r/retry", "", nil) }
	want("r")
	h.do("given", true)
	h.do("build", false)
	again()
	want("r.2")
	h.do("build", true)
	h.do("other", true)
	h.do("test", false)
	again() // build does not run again
	want("r.2")
	h.do("test", true)
	h.do("package", false)
	again()
	want("r.2")
	h.do("package", true)
	if r := h.runState(); r.State != Succeeded || r.Attempts != 4 {
		t.Errorf("the run is %s in its try %d", r.State, r.Attempts)
	}
}

// TestASourceThatWasUndoneIsMadeAnew has the job that keeps it run once more.
func TestASourceThatWasUndoneIsMadeAnew(t *testing.T) {
	h, _ := aRun(t, `"a":{"command":["x"],"artifacts":[{"name":"app","path":"out"}],"compensate":[{"run":"undo a"}]},
		"b":{"command":["x"],"needs":["a"],"source":{"name":"app"}}`)
	h.do("a", true)
	h.do("b", false)
	if h.undo(true) != "a" {
		t.Fatal("a was not undone")
	}
	h.want(200, "POST", "/runs/r/retry", "", nil)
	h.wantSource("b", "p/app/r.2")
	// A run of some jobs has those they need, and what these keep.
	var r Run
	h.want(201, "POST", "/pipelines/p/runs", `{"run_id":"s","jobs":["b"]}`, &r)
	if s := h.job(r.Jobs[1].Job).Spec.Source; *s != (spec.Source{Repository: "p", Name: "app", Version: "s"}) {
		t.Errorf("b starts from %v", s)
	}
}

func TestASourceThatNobodyKeepsIsAFault(t *testing.T) {
	h := newHouse(t)
	job := func(needs, source, artifacts string) string {
		return `{"command":["x"],"needs":[` + needs + `],"source":{` + source + `},"artifacts":[` + artifacts + `]}`
	}
	body := `{"spec":{"name":"p","jobs":{
		"app":{"command":["x"],"artifacts":[{"name":"app","path":"a"}]},
		"same":{"command":["x"],"artifacts":[{"name":"app","repository":"p","path":"b"}]},
		"twice":{"command":["x"],"artifacts":[{"name":"lib","version":"1","path":"a"},{"name":"lib","version":"2","path":"b"}]},
		"middle":{"command":["x"],"needs":["app"]},
		"good":` + job(`"middle"`, `"name":"app","repository":"p"`, ``) + `,
		"ambiguous":` + job(`"middle","same"`, `"name":"app"`, ``) + `,
		"bad-name":` + job(``, `"name":"a b"`, ``) + `,
		"circle-a":` + job(`"circle-b","app"`, `"name":"web"`, ``) + `,
		"circle-b":` + job(`"circle-a"`, `"name":"app"`, `{"name":"web","path":"a"}`) + `,
		"elsewhere":` + job(`"app"`, `"name":"app","repository":"q"`, ``) + `,
		"given":` + job(``, `"name":"nothing","version":"1"`, ``) + `,
		"its-own":` + job(``, `"name":"own"`, `{"name":"own","path":"a"}`) + `,
		"not-needed":` + job(`"middle"`, `"name":"lib"`, ``) + `,
		"unknown":` + job(`"ap"`, `"name":"app"`, ``) + `,
		"versions":` + job(`"twice"`, `"name":"lib"`, ``) + `}}}`
	var p struct {
		Errors []struct{ Location, Message string }
	}
	h.want(422, "POST", "/pipelines", body, &p)
	got := map[string]string{}
	for _, e := range p.Errors {
		got[e.Location] = e.Message
	}
	at := func(name string) string { return "body.spec.jobs." + name }
	const nobody = "no job that it needs keeps this artifact: say which version, or need the job that keeps it"
	want := map[string]string{
		at("ambiguous.source.version"):  "both app and same keep an artifact of this name: say which version, or give them different names",
		at("bad-name.source.name"):      got[at("bad-name.source.name")],
		at("circle-a.needs"):            "the jobs wait for each other in a circle: circle-a → circle-b → circle-a",
		at("elsewhere.source.version"):  nobody,
		at("its-own.source.version"):    nobody,
		at("not-needed.source.version"): "twice keeps this artifact, and is not among what the job needs: add it to needs, or say which version",
		at("unknown.needs[0]"):          "no such job: did you mean app?",
		at("versions.source.version"):   "twice keeps more than one artifact of this name: say which version",
	}
	for _, place := range slices.Sorted(maps.Keys(want)) {
		if got[place] != want[place] || got[place] == "" {
			t.Errorf("%s: %q, want %q", place, got[place], want[place])
		}
	}
	if len(p.Errors) != len(want) {
		t.Errorf("%d faults, want %d: %v", len(p.Errors), len(want), p.Errors)
	}
	// Without a pipeline there is nothing to take it from.
	h.want(422, "POST", "/jobs", `{"spec":{"command":["x"],"source":{"name":"app"}}}`, &p)
	for i, place := range []string{"repository", "version"} {
		if len(p.Errors) != 2 || p.Errors[i].Location != "body.spec.source."+place {
			t.Fatalf("a job alone: %v", p.Errors)
		}
	}
}

// TestASourceComesFromNeededJobsAlone has a job of any graph keep a thing, and another
// ask for it.
func TestASourceComesFromNeededJobsAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := pipeline{Pipeline{Spec: spec.Pipeline{Name: "p", Jobs: map[string]spec.PipelineJob{}}}}
		for _, m := range drawGraph(t) {
			p.Spec.Jobs[m.Name] = spec.PipelineJob{Job: spec.Job{Command: []string{"x"}}, Needs: m.Needs}
		}
		name := rapid.SampledFrom(slices.Sorted(maps.Keys(p.Spec.Jobs)))
		keeps, asks := name.Draw(t, "keeps"), name.Draw(t, "asks")
		k := p.Spec.Jobs[keeps]
		k.Artifacts = []spec.Artifact{{Name: "app", Path: "a"}}
		p.Spec.Jobs[keeps] = k
		a := p.Spec.Jobs[asks]
		a.Source = &spec.Source{Name: "app"}
		p.Spec.Jobs[asks] = a
		needed := keeps != asks && slices.Contains(p.order([]string{asks}), keeps)
		if faults, found := p.Spec.Validate(), p.Spec.Keepers()[asks] == keeps; found != needed || needed != (faults == nil) {
			t.Fatalf("%s asks, %s keeps, needed: %v; found: %v, %s", asks, keeps, needed, found, fmt.Sprint(faults))
		}
	})
}
