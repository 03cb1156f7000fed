package event

// The whole conversation of the house, in the order a submission lives it. The
// bus's streams, docs/events.md, the JSON Schemas and the AsyncAPI page are made
// from this table.
var (
	// security: who may
	AuthGranted         = define[Grant]("ci.security.auth.granted", "AuthGranted", "security", ExactlyOnce, KeepAudit, "someone was allowed to do something")
	AuthRevoked         = define[Grant]("ci.security.auth.revoked", "AuthRevoked", "security", ExactlyOnce, KeepAudit, "access that was granted has been taken back")
	AuthorizationDenied = define[Denial]("ci.security.auth.denied", "AuthorizationDenied", "security", ExactlyOnce, KeepAudit, "someone was not allowed to do something")

	// orchestration: a run begins
	RunStarted   = define[RunMoved]("ci.run.started", "RunStarted", "orchestration", AtLeastOnce, KeepBusiness, "a pipeline runs")
	JobRequested = define[JobRequest]("ci.job.requested", "JobRequested", "orchestration", AtLeastOnce, KeepBusiness, "an attempt of a job waits for a place")

	// scheduling: finding a place
	OfferCreated       = define[Offer]("ci.offer.created", "OfferCreated", "scheduling", AtLeastOnce, KeepBusiness, "a node offers capacity")
	CapacityUpdated    = define[Capacity]("ci.node.capacity.updated", "CapacityUpdated", "scheduling", AtLeastOnce, KeepBusiness, "what a node has left changed")
	AssignmentCreated  = define[Assignment]("ci.assignment.created", "AssignmentCreated", "scheduling", AtLeastOnce, KeepBusiness, "an attempt has a place")
	AssignmentRejected = define[Rejection]("ci.assignment.rejected", "AssignmentRejected", "scheduling", AtLeastOnce, KeepBusiness, "no node, however empty, can take the job; it waits for one that can")
	AssignmentRevoked  = define[Rejection]("ci.assignment.revoked", "AssignmentRevoked", "scheduling", AtLeastOnce, KeepBusiness, "a place is taken back before its job ended")

	// worker: making one
	WorkerCreated = define[WorkerMade]("ci.worker.created", "WorkerCreated", "worker", AtLeastOnce, KeepBusiness, "a worker is ready for its job")
	WorkerLease   = define[Lease]("ci.worker.lease", "WorkerLeaseExpired", "worker", AtLeastOnce, KeepBusiness, "nobody called a worker for longer than its lease: it has ended itself, and WorkerFailed follows")

	// orchestration and execution: the work
	JobStarted    = define[JobStart]("ci.job.started", "JobStarted", "orchestration", AtLeastOnce, KeepBusiness, "an attempt may run its steps on its worker")
	StepStarted   = define[StepBegin]("ci.step.started", "StepStarted", "execution", AtLeastOnce, KeepBusiness, "a step's process runs")
	StepCompleted = define[StepEnd]("ci.step.completed", "StepCompleted", "execution", AtLeastOnce, KeepBusiness, "a step ended well")
	StepFailed    = define[StepFault]("ci.step.failed", "StepFailed", "execution", AtLeastOnce, KeepBusiness, "a try of a step ended badly")

	// artifact: what is kept
	ArtifactUploaded  = define[ArtifactKept]("ci.artifact.uploaded", "ArtifactUploaded", "artifact", AtLeastOnce, KeepBusiness, "an artifact is stored and its checksum verified")
	ArtifactValidated = define[ArtifactChecked]("ci.artifact.validated", "ArtifactValidated", "artifact", AtLeastOnce, KeepBusiness, "an artifact's content was compared with its checksum")
	ArtifactPromoted  = define[ArtifactMoved]("ci.artifact.promoted", "ArtifactPromoted", "artifact", AtLeastOnce, KeepBusiness, "an artifact may be used in an environment")

	// orchestration: the end
	JobRetrying   = define[JobRetry]("ci.job.retrying", "JobRetrying", "orchestration", AtLeastOnce, KeepBusiness, "an attempt ended badly, and another will follow")
	JobCompleted  = define[JobDone]("ci.job.completed", "JobCompleted", "orchestration", AtLeastOnce, KeepBusiness, "all steps of a job ended well")
	JobFailed     = define[JobFault]("ci.job.failed", "JobFailed", "orchestration", AtLeastOnce, KeepBusiness, "a step of a job failed for good")
	JobCancelled  = define[JobStop]("ci.job.cancelled", "JobCancelled", "orchestration", AtLeastOnce, KeepBusiness, "someone called a job off")
	JobTerminated = define[JobFault]("ci.job.terminated", "JobTerminated", "orchestration", AtLeastOnce, KeepBusiness, "the platform lost an attempt of a job; final unless JobRetrying follows")

	CompensationRequested = define[Compensation]("ci.compensation.requested", "CompensationRequested", "orchestration", AtLeastOnce, KeepBusiness, "a run failed, and what a job of it did is to be undone")
	CompensationCompleted = define[Compensation]("ci.compensation.completed", "CompensationCompleted", "orchestration", AtLeastOnce, KeepBusiness, "what a job did is undone")
	CompensationFailed    = define[Compensation]("ci.compensation.failed", "CompensationFailed", "orchestration", AtLeastOnce, KeepBusiness, "what a job did could not be undone")
	RunEnded              = define[RunMoved]("ci.run.ended", "RunEnded", "orchestration", AtLeastOnce, KeepBusiness, "all jobs of a run have ended")

	// worker: ending one
	WorkerTerminated = define[WorkerEnd]("ci.worker.terminated", "WorkerTerminated", "worker", AtLeastOnce, KeepBusiness, "a worker ended because it was told to")
	WorkerFailed     = define[WorkerLoss]("ci.worker.failed", "WorkerFailed", "worker", AtLeastOnce, KeepBusiness, "a worker could not be made, died, or was lost")

	// telemetry: what was seen
	MetricEmitted = define[Metric]("ci.metric.emitted", "MetricEmitted", "telemetry", AtMostOnce, KeepNothing, "a measurement")
	TraceSpans    = define[Trace]("ci.trace.spans", "TraceSpans", "telemetry", AtLeastOnce, KeepTraces, "spans that have ended")
	AlertRaised   = define[Alert]("ci.alert.raised", "AlertRaised", "telemetry", AtLeastOnce, KeepBusiness, "someone should look")
)
