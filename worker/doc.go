// Package worker is the room that makes, watches and ends workers. It makes one
// for each assignment, through a provider (package provider), gives it an
// identity of its own, and ends it when its attempt is over, however that came.
//
// Each AssignmentCreated is answered, in the end, by exactly one WorkerTerminated
// or WorkerFailed: the capacity that the assignment holds is given back by it.
package worker
