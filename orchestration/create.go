package orchestration

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/observe"
	"fragua.dev/fragua/internal/sqldb"
)

// An order is what POST /jobs asks for.
type order struct {
	Job      ident.Job         `json:"job_id,omitempty" maxLength:"128" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$" doc:"Made by the platform unless given; the same again answers the same job"`
	Spec     spec.Job          `json:"spec"`
	Tags     map[string]string `json:"tags,omitempty" maxProperties:"64"`
	Affinity *spec.Affinity    `json:"affinity,omitempty" doc:"Where the job may run; the same as spec.affinity"`
	Priority int               `json:"priority,omitempty" minimum:"-1000" maximum:"1000" doc:"Jobs of a higher priority are placed first"`
}

// Resolve says what is wrong with an order, besides what its schema knows.
func (o *order) Resolve(huma.Context) []error {
	var f []spec.Fault
	for _, x := range o.Spec.Validate() {
		f = append(f, spec.Fault{Path: "spec." + x.Path, Message: x.Message})
	}
	if o.Job != "" && !ident.Valid(string(o.Job)) {
		f = append(f, spec.Fault{Path: "job_id", Message: "want 1 to 128 letters, digits, '.', '_' or '-', beginning with a letter or digit"})
	}
	if o.Affinity != nil && o.Spec.Affinity != nil && *o.Affinity != *o.Spec.Affinity {
		f = append(f, spec.Fault{Path: "affinity", Message: "differs from spec.affinity: give one of them"})
	}
	for k, v := range o.Tags {
		if k == "" || len(k) > 128 || len(v) > 1024 {
			f = append(f, spec.Fault{Path: "tags", Message: "a tag's name has 1 to 128 bytes, its value at most 1024"})
			break
		}
	}
	return httpapi.Faults("body", f)
}

// tagList writes tags as the policies see them.
func tagList(tags map[string]string) []string {
	out := make([]string, 0, len(tags))
	for k, v := range tags {
		out = append(out, k+"="+v)
	}
	return out
}

// full refuses a command while too many jobs have not ended, unless it is a repeat:
// earlier looks for what the first one made, and ends in errAbsent if there is none.
func (r *Room) full(earlier func() error) error {
	if r.live.Load() < int64(r.cfg.MaxLive) {
		return nil
	}
	if err := earlier(); !errors.Is(err, errAbsent) {
		return err
	}
	return tooMany()
}

func tooMany() error {
	return httpapi.TooMany(time.Second, "too many jobs have not ended yet; try again when some have")
}

// admit counts jobs that tx is about to make, or refuses them: of many who ask at once
// full lets in all. A run of more jobs than may live begins when nothing else does.
func (r *Room) admit(tx *sqldb.Tx, jobs int) error {
	if n := r.live.Load(); n >= int64(r.cfg.MaxLive) || n > 0 && n+int64(jobs) > int64(r.cfg.MaxLive) {
		return tooMany()
	}
	r.live.Add(int64(jobs))
	tx.OnRollback(func() { r.live.Add(int64(-jobs)) })
	return nil
}

// createJob accepts a job, or finds the one that was accepted before. fresh says
// which.
func (r *Room) createJob(ctx context.Context, o order) (view Job, fresh bool, err error) {
	p, brought := authz.From(ctx), false
	if o.Affinity != nil {
		o.Spec.Affinity = o.Affinity
	}
	o.Spec = o.Spec.Normal()
	if len(o.Tags) == 0 { // {} asks for what nothing asks for
		o.Tags = nil
	}
	hash := fingerprint(o.Spec, o.Tags, o.Priority)
	if o.Job == "" {
		o.Job = ident.Job(r.cfg.IDs("job"))
	} else {
		brought = true
	}
	ctx, end := observe.CreateJob(ctx, p.Tenant, o.Job, hex.EncodeToString(hash[:8]), httpapi.Correlation(ctx))
	defer func() { end(err) }()
	j := &job{Job: Job{
		ID: o.Job, Tenant: p.Tenant, Correlation: httpapi.Correlation(ctx), State: Pending, Attempts: 1, Spec: o.Spec,
		Steps: r.newSteps(o.Spec), Tags: o.Tags, Priority: o.Priority, Owner: p.Sub, Created: r.cfg.Now().UTC(),
	}}
	j.Trace = cmp.Or(observe.TraceParent(ctx), httpapi.TraceParent(ctx))
	answer, err := r.gate.Ask(ctx, "Job::create", authz.Resource{
		Type: "Job", ID: string(j.ID), Tenant: p.Tenant, Attrs: map[string]any{"owner": p.Sub, "tags": tagList(o.Tags)},
	}, nil)
	if err != nil {
		return Job{}, false, err
	}
	if err := r.full(func() error {
		_, err := r.readJob(ctx, p.Tenant, j.ID)
		return err
	}); err != nil {
		return Job{}, false, err
	}
	var stored *job
	err = r.db.Write(ctx, func(tx *sqldb.Tx) error {
		stored = nil
		if brought {
			var had []byte
			old, err := r.known.load(tx, p.Tenant, j.ID)
			if err == nil {
				if err := tx.QueryRow(`SELECT hash FROM job WHERE tenant = $1 AND id = $2`, string(p.Tenant), string(j.ID)).Scan(&had); err != nil {
					return err
				}
				if !bytes.Equal(had, hash) {
					return httpapi.Conflict("another job has this job_id")
				}
				stored = old
				return tx.Emit(answer.Event)
			}
			if !errors.Is(err, errAbsent) {
				return err
			}
		}
		if err := r.admit(tx, 1); err != nil {
			return err
		}
		if err := r.known.insert(tx, j, hash, j.Created); err != nil {
			return err
		}
		return tx.Emit(answer.Event, j.request(j.Created))
	})
	if err != nil {
		return Job{}, false, err
	}
	if stored != nil {
		return stored.Job, false, nil
	}
	return j.Job, true, nil
}

// runOrder is what POST /pipelines/{id}/runs asks for.
type runOrder struct {
	Run  ident.Run         `json:"run_id,omitempty" maxLength:"128" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$" doc:"Made by the platform unless given; the same again answers the same run"`
	Env  map[string]string `json:"env,omitempty" doc:"Environment variables of every job, over the pipeline's"`
	Jobs []string          `json:"jobs,omitempty" maxItems:"1000" nullable:"false" doc:"Only these jobs and what they need; all unless given"`
}

// Resolve says what is wrong with an order whatever the pipeline is, besides what its
// schema knows.
func (o *runOrder) Resolve(huma.Context) []error {
	var faults []spec.Fault
	if o.Run != "" && !ident.Valid(string(o.Run)) {
		faults = append(faults, spec.Fault{Path: "run_id", Message: "want 1 to 128 letters, digits, '.', '_' or '-', beginning with a letter or digit"})
	}
	for _, f := range (spec.Pipeline{Name: "x", Env: o.Env}).Validate() {
		if f.Path != "jobs" { // which are the pipeline's
			faults = append(faults, f)
		}
	}
	return httpapi.Faults("body", faults)
}

// newRun makes a run of a pipeline, with its jobs.
func (r *Room) newRun(ctx context.Context, p *pipeline, o runOrder) (*run, []*job) {
	who, now := authz.From(ctx), r.cfg.Now().UTC()
	out := &run{Run: Run{
		ID: o.Run, Tenant: who.Tenant, Pipeline: p.ID, Version: p.Version, Name: p.Spec.Name, Correlation: httpapi.Correlation(ctx),
		State: Pending, Attempts: 1, Owner: who.Sub, Created: now,
	}, Env: o.Env, Steps: map[string][]spec.Step{}, Trace: cmp.Or(observe.TraceParent(ctx), httpapi.TraceParent(ctx))}
	if out.ID == "" {
		out.ID = ident.Run(r.cfg.IDs("run"))
	}
	var jobs []*job
	keepers, kept := p.Spec.Keepers(), map[string][]spec.Artifact{}
	for _, name := range p.order(o.Jobs) {
		pj := p.Spec.Jobs[name]
		if len(pj.Compensate) > 0 {
			out.Steps[name] = pj.Compensate
		}
		s := p.jobSpec(name, o.Env, out)
		s.Source = p.source(name, kept[keepers[name]])
		kept[name] = s.Artifacts
		j := r.memberJob(out, name, s, len(pj.Needs) > 0, now)
		jobs = append(jobs, j)
		out.Jobs = append(out.Jobs, Member{Name: name, Job: j.ID, Needs: pj.Needs})
	}
	return out, jobs
}

func (r *Room) memberJob(in *run, name string, s spec.Job, waits bool, now time.Time) *job {
	j := &job{Job: Job{
		ID: ident.Job(r.cfg.IDs("job")), Tenant: in.Tenant, Pipeline: in.Pipeline, Run: in.ID, Name: name, Correlation: in.Correlation,
		State: Pending, Attempts: 1, Spec: s, Steps: r.newSteps(s), Owner: in.Owner, Created: now,
	}}
	j.Trace, j.Waits = in.Trace, waits
	_, end := observe.CreateJob(observe.FromTraceParent(context.Background(), in.Trace), in.Tenant, j.ID, hex.EncodeToString(fingerprint(s)[:8]), in.Correlation)
	end(nil)
	return j
}

// begin saves jobs of a run, and asks for those that need nothing.
func (r *Room) begin(tx *sqldb.Tx, jobs []*job, now time.Time) error {
	for _, j := range jobs {
		var facts []event.Event
		if !j.Waits {
			facts = append(facts, j.request(now))
		}
		if err := r.known.insert(tx, j, fingerprint(j.ID), now); err != nil {
			return err
		}
		if err := tx.Emit(facts...); err != nil {
			return err
		}
	}
	return nil
}

// jobSpec returns the specification of a pipeline's job within a run.
func (p *pipeline) jobSpec(name string, env map[string]string, in *run) spec.Job {
	s := p.Spec.Jobs[name].Job.Normal()
	merged := maps.Clone(p.Spec.Env)
	if merged == nil {
		merged = map[string]string{}
	}
	maps.Copy(merged, s.Env)
	maps.Copy(merged, env)
	if s.Env = merged; len(merged) == 0 {
		s.Env = nil
	}
	s.Artifacts = p.artifacts(name, in)
	return s
}

// artifacts returns what a job keeps in the current try of a run.
func (p *pipeline) artifacts(name string, in *run) []spec.Artifact {
	out := slices.Clone(p.Spec.Jobs[name].Artifacts)
	for i := range out {
		out[i].Repository = cmp.Or(out[i].Repository, p.Spec.Name)
		out[i].Version = cmp.Or(out[i].Version, in.version())
	}
	return out
}

// source returns what a job of a run starts from: without a version, that of kept,
// which the job that keeps it was told to keep. It may have done so in an earlier try.
func (p *pipeline) source(name string, kept []spec.Artifact) *spec.Source {
	s := p.Spec.Jobs[name].Source
	if s == nil {
		return nil
	}
	out := *s
	out.Repository = cmp.Or(s.Repository, p.Spec.Name)
	for _, a := range kept {
		if out.Version == "" && a.Repository == out.Repository && a.Name == out.Name {
			out.Version = a.Version
		}
	}
	return &out
}
