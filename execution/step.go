package execution

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/artifacts"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/execution/agentclient"
	"fragua.dev/fragua/execution/logstore"
	"fragua.dev/fragua/internal/observe"
	"fragua.dev/fragua/internal/sqldb"
)

// drain is how long the last words of a step that was called off are waited for:
// longer than the worker's grace.
const drain = 8 * time.Second

// overtime is how long after a job's deadline its worker, which knows it, is asked
// whether it has ended the step: longer than its grace. One that has not by then is
// stopped, or cut off.
const overtime = agentapi.DefaultGrace + 2*time.Second

const answerTime = 3 * time.Second // of a worker that is asked that

// step runs the current try of the current step. It returns how that ended, how to
// save its log, and the fact that it began unless that is saved already.
func (w *work) step(secrets map[string]string) (o outcome, logs *keptLog, pre []event.Event) {
	a, now := w.a, w.room.cfg.Now
	o = outcome{started: now(), at: now(), result: spec.NewResult("", -1)}
	if c, off := w.off(); off {
		o.code, o.message = c.code, c.reason
		o, logs = w.remains(o)
		return o, logs, nil
	}
	if !now().Before(a.deadline()) && !a.Begun {
		o.code, o.message, o.retryable = codeDeadline, a.late(), true
		return o, nil, nil
	}
	_, finish := observe.RunStep(observe.FromTraceParent(w.ctx, a.Trace), a.Tenant, a.Start.Job, a.execID(), a.stepID())
	defer func() {
		if o.code != "" {
			finish(errors.New(o.code + ": " + o.message))
		} else {
			finish(nil)
		}
	}()
	var x agentapi.Exec
	err := w.retry(w.ctx, func(ctx context.Context) (err error) {
		r := a.request(secrets, now())
		r.WaitMS = coalesce.Milliseconds()
		x, err = w.agent.Exec(ctx, r)
		return err
	})
	if err != nil {
		o.code, o.message = codeLost, "the worker did not take the step: "+err.Error()
		if a.Begun {
			o.message = "its worker is gone: " + err.Error()
		}
		o, logs = w.remains(o)
		return o, logs, nil
	}
	o.started, o.exec, o.result = x.Started, x.Exec, spec.NewResult(string(x.Exec), -1)
	running := w.room.register(begunBy(a, x), nil)
	if x.State != agentapi.Started && int64(len(x.Log)) == x.LogBytes { // a short step: that was all
		logs, err := w.room.keep(w.ctx, a.Tenant, x)
		close(running.printed)
		if err == nil {
			pre = w.hasBegun(x)
			return a.judge(x), logs, pre
		}
		o.at = now()
		o.code, o.message = codeLost, err.Error()
		return o, logs, pre
	}
	type end struct {
		x    agentapi.Exec
		logs *keptLog
		err  error
	}
	ended := make(chan end, 1)
	patient, giveUp := context.WithCancel(w.heard)
	defer giveUp()
	w.room.wg.Go(func() {
		x, logs, err := w.room.follow(patient, w.agent, a.Tenant, x)
		close(running.printed)
		ended <- end{x, logs, err}
	})
	t := time.NewTimer(coalesce)
	defer t.Stop()
	var e end
	select {
	case e = <-ended:
		pre = w.hasBegun(x)
	case <-t.C:
		if !a.Begun {
			w.save(nil, a.began(x.Started, false))
		}
		late := time.AfterFunc(a.deadline().Sub(now())+overtime, func() {
			if !w.over(x.Exec) {
				giveUp()
			}
		})
		e = <-ended
		late.Stop()
	}
	if e.err != nil {
		o.at = now()
		switch o.code, o.message = codeLost, e.err.Error(); {
		case errors.Is(context.Cause(patient), errSilent):
			o.message = errSilent.Error()
		case patient.Err() != nil && w.ctx.Err() == nil:
			o.code, o.message, o.retryable = codeDeadline, a.late()+", and its worker did not answer any more", true
		}
		return o, e.logs, pre
	}
	return a.judge(e.x), e.logs, pre
}

// remains adds to how a step ended what an earlier process has kept of it, if its start
// was told then: its worker will not say any more.
func (w *work) remains(o outcome) (outcome, *keptLog) {
	a, r := w.a, w.room
	if !a.Begun || r.ctx.Err() != nil { // else the next process goes on from what is kept
		return o, nil
	}
	o.exec, o.started, o.result = a.execID(), a.Since, spec.NewResult(string(a.execID()), -1)
	logs, err := r.logs.Writer(a.Tenant, o.exec)
	if err != nil {
		r.cfg.Log.Error("what was kept of a log cannot be read", "exec_id", o.exec, "error", err)
		return o, nil
	}
	index, err := r.finish(r.ctx, logs, false)
	if err != nil {
		r.cfg.Log.Error("what was kept of a log cannot be told", "exec_id", o.exec, "error", err)
	}
	return o, &keptLog{index, logs}
}

// over says whether a step's worker answers, and says that it has ended.
func (w *work) over(exec ident.Exec) bool {
	ctx, cancel := context.WithTimeout(w.ctx, answerTime)
	defer cancel()
	x, err := w.agent.Complete(ctx, agentapi.CompleteRequest{Exec: exec})
	return err == nil && x.State != agentapi.Started
}

// hasBegun returns the fact that a step began which has ended by now: it is saved with
// its end. Where artifacts are kept before that is told, which may take long, it is
// saved at once.
func (w *work) hasBegun(x agentapi.Exec) []event.Event {
	a := w.a
	switch {
	case a.Begun:
		return nil
	case a.last() && len(a.Start.Spec.Artifacts) > 0:
		w.save(nil, a.began(x.Started, false))
		return nil
	}
	return []event.Event{a.began(x.Started, true)}
}

// keep keeps the log of an execution that has ended, and came with its whole log.
func (r *Room) keep(ctx context.Context, t ident.Tenant, x agentapi.Exec) (*keptLog, error) {
	logs, err := r.logs.Writer(t, x.Exec)
	if err != nil {
		return nil, fmt.Errorf("its log cannot be kept: %w", err)
	}
	if have := logs.Offset(); have < int64(len(x.Log)) {
		err := r.again(ctx, func() error { return logs.Copy(r.ctx, bytes.NewReader(x.Log[logs.Offset():])) })
		if err != nil {
			return &keptLog{nil, logs}, fmt.Errorf("its log cannot be kept: %w", err)
		}
	}
	index, err := r.finish(ctx, logs, true)
	return &keptLog{index, logs}, err
}

// finish ends a log. It tries again for a while: a full disk may have room again.
func (r *Room) finish(ctx context.Context, logs *logstore.Writer, whole bool) (index func(*sqldb.Tx) error, err error) {
	err = r.again(ctx, func() (err error) {
		index, _, err = logs.Finish(whole)
		return err
	})
	return index, err
}

// follow keeps the log of an execution until its end, and asks how that was. When
// ctx ends, what is still printed is waited for, for a while.
func (r *Room) follow(ctx context.Context, agent Agent, t ident.Tenant, x agentapi.Exec) (agentapi.Exec, *keptLog, error) {
	patient, cancel := context.WithCancel(r.ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(drain, cancel) })()
	logs, err := r.logs.Writer(t, x.Exec)
	if err != nil {
		return x, nil, fmt.Errorf("its log cannot be kept: %w", err)
	}
	copied := r.again(ctx, func() error {
		stream, err := agent.Logs(patient, x.Exec, logs.Offset())
		if err != nil {
			return err
		}
		defer stream.Close()
		return logs.Copy(patient, stream)
	})
	err = copied
	for err == nil {
		err = r.again(ctx, func() (err error) {
			x, err = agent.Complete(patient, agentapi.CompleteRequest{Exec: x.Exec, WaitMS: agentapi.MaxWait})
			return err
		})
		if x.State != agentapi.Started {
			break
		}
	}
	if r.ctx.Err() != nil {
		return x, nil, r.ctx.Err() // the next process goes on from what is kept
	}
	index, ferr := r.finish(ctx, logs, copied == nil)
	return x, &keptLog{index, logs}, errors.Join(err, ferr)
}

// keptLog is a log that is whole, and waits for its row.
type keptLog struct {
	index  func(*sqldb.Tx) error
	writer *logstore.Writer
}

func (l *keptLog) save(tx *sqldb.Tx) error {
	if l == nil || l.index == nil {
		return nil
	}
	return l.index(tx)
}

// release lets go of the log when its row is saved.
func (l *keptLog) release() {
	if l != nil {
		l.writer.Release()
	}
}

// again calls fn until it succeeds, ctx ends, or it failed for too long.
func (r *Room) again(ctx context.Context, fn func() error) error {
	var left *patience
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		began := r.cfg.Now()
		err := fn()
		if err == nil || ctx.Err() != nil || errors.Is(err, agentclient.ErrRefused) || errors.Is(err, artifacts.ErrNoSecret) {
			return err
		}
		if left == nil {
			left = patient(r.cfg.Now)
			defer left.stop()
		}
		if r.cfg.Now().Sub(began) > time.Second {
			left.anew() // it went well for a while
			pause = 20 * time.Millisecond
		}
		if left.ended() {
			return fmt.Errorf("tried for %v: %w", lostAfter, err)
		}
		if !sleep(ctx, pause) {
			return err
		}
	}
}
