// Package agent is the program in the worker: it takes one job at a time from the
// provider that started it, over a pipe, and runs the job's steps as the execution
// room asks, over mutual TLS. When the job is over it ends everything that the job
// left, and takes another only if it can tell that nothing is left.
package agent
