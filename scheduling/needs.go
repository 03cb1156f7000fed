package scheduling

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/sqldb"
)

// A needed job has to end well before another one asks for a place.
type needed struct {
	Job  ident.Job `json:"job_id"`
	Name string    `json:"name"`
}

// A need is what is known of a job that never asked for a place.
type need struct {
	of      []needed
	runOver bool
}

// runStarted remembers which jobs of a run wait for which.
func (r *Room) runStarted(ctx context.Context, e event.Event, d event.RunMoved) error {
	ids := map[string]ident.Job{}
	for _, m := range d.Jobs {
		ids[m.Name] = m.Job
	}
	return r.tell(ctx, func(t *turn) error {
		for _, m := range d.Jobs {
			if len(m.Needs) == 0 {
				continue
			}
			var of []needed
			for _, name := range m.Needs {
				of = append(of, needed{ids[name], name})
			}
			body, err := json.Marshal(of)
			if err != nil {
				return err
			}
			_, err = t.tx.Exec(`INSERT INTO needs (tenant, job, run, needs, at_ms) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, job) DO UPDATE SET needs = excluded.needs, run_over = 0`,
				string(e.Tenant), string(m.Job), string(d.Run), body, toMS(t.now))
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *Room) runEnded(ctx context.Context, e event.Event, d event.RunMoved) error {
	return r.tell(ctx, func(t *turn) error {
		_, err := t.tx.Exec(`UPDATE needs SET run_over = 1 WHERE tenant = $1 AND run = $2`, string(e.Tenant), string(d.Run))
		return err
	})
}

// needOf returns what a job needs that has no place, or errNoPlace.
func (r *Room) needOf(ctx context.Context, k jobKey) (n need, err error) {
	var body []byte
	err = r.db.QueryRow(ctx, `SELECT needs, run_over FROM needs WHERE tenant = $1 AND job = $2`, string(k.tenant), string(k.job)).Scan(&body, &n.runOver)
	if errors.Is(err, sql.ErrNoRows) {
		return n, errNoPlace
	}
	if err != nil {
		return n, err
	}
	return n, json.Unmarshal(body, &n.of)
}

const mostNeeds = 3 // that are told one by one

// explainNeed tells why a job has not asked for a place.
func (r *Room) explainNeed(ctx context.Context, k jobKey, n need) (explanation, error) {
	out := explanation{Job: k.job, Attempt: 1, State: Pending, Reasons: []Reason{}}
	if n.runOver {
		out.State, out.Text = Revoked, "never asked for a place: its run ended before all jobs that it needs had ended well"
		return out, nil
	}
	var parts []string
	for _, m := range n.of {
		out.Needs = append(out.Needs, m.Job)
		if len(parts) == mostNeeds {
			continue
		}
		stands := "waits for others itself"
		p, err := r.find(ctx, jobKey{k.tenant, m.Job})
		switch {
		case err == nil:
			unlock, err := r.read()
			if err != nil {
				return out, err
			}
			stands = r.explain(p).Text
			unlock()
		case !errors.Is(err, errNoPlace):
			return out, err
		}
		parts = append(parts, fmt.Sprintf("%s (%s): %s", m.Name, m.Job, stands))
	}
	if rest := len(n.of) - len(parts); rest > 0 {
		parts = append(parts, count(rest, "more job"))
	}
	out.Text = "asks for a place when the jobs that it needs have ended well. " + strings.Join(parts, "; ")
	return out, nil
}

// pruneNeeds forgets up to limit of those that were noted before a time.
func pruneNeeds(tx *sqldb.Tx, before time.Time, limit int) (int64, error) {
	return tx.Exec(`DELETE FROM needs WHERE (tenant, job) IN (SELECT tenant, job FROM needs WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)`, toMS(before), limit)
}
