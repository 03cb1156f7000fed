package orchestration

import (
	"fmt"
	"slices"
)

// A State is where a job stands. The words are the blueprint's.
type State string

// The states of a job.
const (
	Pending    State = "PENDING"
	Scheduled  State = "SCHEDULED"
	Running    State = "RUNNING"
	Succeeded  State = "SUCCEEDED"
	Failed     State = "FAILED"
	Cancelled  State = "CANCELLED"
	Terminated State = "TERMINATED" // lost by the platform
)

// A move is a row of the state machine.
type move struct {
	from []State
	to   State
	on   string
}

// moves is the blueprint's table 3. Nothing leaves SUCCEEDED, FAILED or
// CANCELLED; TERMINATED is left only while attempts remain, in the transaction
// that enters it.
var moves = []move{
	{[]State{Pending}, Scheduled, "AssignmentCreated"},
	{[]State{Scheduled}, Running, "WorkerCreated"},
	{[]State{Running}, Succeeded, "last step completed"},
	{[]State{Running}, Failed, "a step failed for good"},
	{[]State{Running}, Pending, "StepFailed, retryable, attempts left"},
	{[]State{Pending, Scheduled, Running}, Cancelled, "cancel"},
	{[]State{Scheduled, Running}, Terminated, "the worker ended or was lost, unasked"},
	{[]State{Terminated}, Pending, "attempts left"},
}

// may returns an error unless a job may go from one state to another.
func may(from, to State) error {
	for _, m := range moves {
		if m.to == to && slices.Contains(m.from, from) {
			return nil
		}
	}
	return fmt.Errorf("orchestration: no way from %s to %s", from, to)
}

// ended says whether s is an end state, of a job that will not be tried again.
func (s State) ended() bool {
	return s == Succeeded || s == Failed || s == Cancelled || s == Terminated
}
