package orchestration

import (
	"slices"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/sqldb"
)

// advance moves a run after one of its jobs has ended: it asks for jobs that
// have what they need, calls off those that never will, undoes what a failed
// run has done, and ends the run. It returns how many more jobs ended and began.
func (r *Room) advance(tx *sqldb.Tx, t ident.Tenant, id ident.Run, now time.Time) (ended, begun int, err error) {
	run, err := loadRun(tx, t, id)
	if err != nil {
		return 0, 0, err
	}
	if run.Finished != nil {
		return 0, 0, nil
	}
	all, err := members(tx, t, id)
	if err != nil {
		return 0, 0, err
	}
	states, waiting := map[string]State{}, map[string]bool{}
	for _, m := range run.Jobs {
		if j := all[m.Job]; j != nil {
			states[m.Name], waiting[m.Name] = j.State, j.Waits && j.State == Pending
		}
	}
	d := walk(run.Jobs, states, waiting)
	for _, m := range run.Jobs {
		j := all[m.Job]
		var facts []event.Event
		switch blamed := d.skip[m.Name]; {
		case blamed != "":
			if facts, err = j.cancel(now, "it needs "+blamed+", which did not succeed"); err != nil {
				return 0, 0, err
			}
			states[m.Name] = Cancelled
			ended++
		case slices.Contains(d.release, m.Name):
			facts = []event.Event{j.request(now)}
		default:
			continue
		}
		if err := r.known.save(tx, j, now); err != nil {
			return 0, 0, err
		}
		if err := tx.Emit(facts...); err != nil {
			return 0, 0, err
		}
	}
	state := aggregate(states)
	if !state.ended() {
		run.State = state
		return ended, 0, saveRun(tx, run)
	}
	wait, begun, err := r.compensate(tx, run, all, state, now)
	if err != nil || wait {
		return ended, begun, err
	}
	run.State, run.Finished = state, &now
	if err := tx.Emit(run.ended(now)); err != nil {
		return 0, 0, err
	}
	return ended, begun, saveRun(tx, run)
}

// compensate undoes a failed run's work, one job after the other and each once.
// It says whether there is something that the run has to wait for, and how many
// jobs began.
func (r *Room) compensate(tx *sqldb.Tx, run *run, all map[ident.Job]*job, state State, now time.Time) (wait bool, begun int, err error) {
	if state != Failed && state != Terminated || len(run.Steps) == 0 {
		return false, 0, nil
	}
	if run.Undoing == nil {
		run.Undoing = []Undo{}
		current := make([]*job, 0, len(run.Jobs))
		for _, m := range run.Jobs {
			current = append(current, all[m.Job])
		}
		for _, j := range undoing(current, run.Steps) {
			run.Undoing = append(run.Undoing, Undo{Name: j.Name, Job: j.ID, By: ident.Job(r.cfg.IDs("job")), State: Pending})
		}
	}
	run.State = Running
	for i := range run.Undoing {
		u := &run.Undoing[i]
		by := all[u.By]
		switch {
		case u.State.ended():
			continue
		case by == nil:
			undo := r.undoJob(run, all[u.Job], *u, now)
			facts := []event.Event{run.undone(event.CompensationRequested, *u, now), undo.request(now)}
			if err := r.known.insert(tx, undo, fingerprint(u.By), now); err != nil {
				return false, 0, err
			}
			u.State = Running
			if err := tx.Emit(facts...); err != nil {
				return false, 0, err
			}
			return true, 1, saveRun(tx, run)
		case !by.over():
			return true, 0, saveRun(tx, run) // advance is called again when it ends
		}
		u.State = by.State
		kind := event.CompensationCompleted
		if by.State != Succeeded {
			kind = event.CompensationFailed
		}
		if err := tx.Emit(run.undone(kind, *u, now)); err != nil {
			return false, 0, err
		}
	}
	return false, 0, nil
}

// undoJob returns the job that undoes done.
func (r *Room) undoJob(run *run, done *job, u Undo, now time.Time) *job {
	s := done.Spec
	s.Command, s.Steps, s.Artifacts = nil, spec.NormalSteps(run.Steps[u.Name]), nil
	j := &job{Job: Job{
		ID: u.By, Tenant: run.Tenant, Pipeline: run.Pipeline, Run: run.ID, Name: "undo " + u.Name, Correlation: run.Correlation,
		State: Pending, Attempts: 1, Spec: s, Owner: run.Owner, Undoes: u.Job, Created: now,
	}}
	j.Trace = run.Trace
	j.Steps = r.newSteps(s)
	return j
}

// newSteps gives each step of a specification its name.
func (r *Room) newSteps(s spec.Job) []Step {
	steps := make([]Step, len(s.Steps))
	for i := range steps {
		steps[i] = Step{ID: ident.Step(r.cfg.IDs("stp")), Name: s.Steps[i].Name, State: stepPending}
	}
	return steps
}
