// Package orchestration is the room that accepts pipelines and jobs, and sees
// them through: it walks the graph of a run, gives failed and lost attempts
// another try, calls jobs off, and undoes what a failed run has done.
//
// A job is a value (job.go) that moves by the table of state.go; every move is
// saved together with the events that tell of it. A run (run.go) is moved by
// the ends of its jobs. What comes too late is dropped, by the attempt it
// carries; what comes too early is asked for again.
package orchestration
