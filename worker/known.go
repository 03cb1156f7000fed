package worker

import (
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/sqldb"
)

// maxKnown bounds the live workers whose rows are remembered.
const maxKnown = 20_000

type workerKey struct {
	tenant ident.Tenant
	id     ident.Worker
}

// known remembers live workers as their rows are: most end within a second, and
// reading the row again costs as much as writing it. It belongs to the goroutine
// that writes, which calls the functions of transactions.
type known map[workerKey]worker

// remember takes note of w as it has been written in tx.
func (k known) remember(tx *sqldb.Tx, w *worker) {
	key := workerKey{w.Tenant, w.ID}
	if w.over() || len(k) >= maxKnown {
		delete(k, key)
	} else {
		k[key] = *w // what it points to never changes
	}
	tx.OnRollback(func() { delete(k, key) })
}

// load returns a worker as this transaction sees it; errAbsent if there is none.
func (r *Room) load(tx *sqldb.Tx, t ident.Tenant, id ident.Worker) (*worker, error) {
	if w, here := r.known[workerKey{t, id}]; here {
		return &w, nil
	}
	return decode(tx.QueryRow(`SELECT body FROM worker WHERE tenant = $1 AND id = $2`, string(t), string(id)))
}
