// Package scheduling finds places for jobs: it knows what each node has left,
// keeps the queue, and decides who goes where.
//
// It hears of attempts that want a place (JobRequested), of those that want none
// any more (JobCancelled, JobFailed, JobCompleted, JobTerminated, JobRetrying),
// and of workers (WorkerCreated, WorkerTerminated, WorkerFailed). It says what
// nodes offer (OfferCreated, CapacityUpdated) and who got a place, or lost it, or
// can never have one (AssignmentCreated, AssignmentRevoked, AssignmentRejected).
//
// [Plan] decides, and [Explain] tells why not; both are functions of a [Snapshot].
// Around them a [Room] keeps the snapshot in step with its database. Everything
// that changes either goes over one desk (desk.go), which gathers what comes in
// while the last batch is being made durable, plans once for all of it, and saves
// queue, assignments, audit and events in one transaction.
//
// The capacity of an assignment is free again when the worker room says that its
// worker has ended, or never came to be: exactly one WorkerTerminated or
// WorkerFailed for each AssignmentCreated, also where the job was called off
// before. Calling off alone frees nothing, or two workers could share one place.
//
// An assignment asked for by POST /schedule stands by itself: its attempt is 0, no
// job event has announced it, and it is held until its worker ends or DELETE
// /schedule/{job_id} takes it back. When the job itself asks later, it gets a
// place of its own, and the one asked for by hand is revoked.
package scheduling
