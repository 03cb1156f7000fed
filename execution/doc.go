// Package execution is the room that runs steps on workers, and keeps what they
// print. For each attempt that may start it walks the steps, one after the other,
// over one connection to the attempt's worker: POST /exec, GET /logs, POST
// /complete. Everything that it asks of a worker it may ask again, so that an
// attempt goes on after a restart from where its row says it was.
package execution
