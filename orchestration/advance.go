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
	states, waiting, err := r.standing(tx, run)
	if err != nil {
		return 0, 0, err
	}
	d := walk(run.Jobs, states, waiting)
	for _, m := range run.Jobs {
		blamed := d.skip[m.Name]
		if blamed == "" && !slices.Contains(d.release, m.Name) {
			continue
		}
		j, err := r.known.load(tx, t, m.Job)
		if err != nil {
			return 0, 0, err
		}
		var facts []event.Event
		if blamed == "" {
			facts = []event.Event{j.request(now)}
		} else {
			if facts, err = j.cancel(now, "it needs "+blamed+", which did not succeed"); err != nil {
				return 0, 0, err
			}
			states[m.Name] = Cancelled
			ended++
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
		if run.State == state { // as of most of a large run's jobs
			return ended, 0, nil
		}
		run.State = state
		return ended, 0, saveRun(tx, run)
	}
	all, err := members(tx, t, id)
	if err != nil {
		return 0, 0, err
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

// standing returns the state of each job of a run, by name, and which wait for
// others. Bodies are read of those alone that may: a large run is walked at the end of
// each of its jobs.
func (r *Room) standing(tx *sqldb.Tx, run *run) (states map[string]State, waiting map[string]bool, err error) {
	rows, err := tx.Query(`SELECT id, state FROM job WHERE run = $2 AND run <> '' AND tenant || '' = $1`, string(run.Tenant), string(run.ID))
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	byID := map[ident.Job]State{}
	for rows.Next() {
		var (
			id    ident.Job
			state State
		)
		if err := rows.Scan(&id, &state); err != nil {
			return nil, nil, err
		}
		byID[id] = state
	}
	if err := rows.Err(); err != nil {
		return nil, nil, err
	}
	rows.Close()
	states, waiting = map[string]State{}, map[string]bool{}
	for _, m := range run.Jobs {
		state, there := byID[m.Job]
		if !there {
			continue
		}
		states[m.Name] = state
		if state == Pending {
			j, err := r.known.look(tx, run.Tenant, m.Job)
			if err != nil {
				return nil, nil, err
			}
			waiting[m.Name] = j.Waits
		}
	}
	return states, waiting, nil
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
