// Package process makes workers that are processes of this machine: the provider
// that needs nothing else installed.
//
// It does not isolate. A step runs as the user that runs Fragua, sees the same
// files, network and processes, and can do to them whatever that user can. What
// the package does see to: a workspace of its own for each job, an environment of
// its own, an identity of its own; and that nothing of a job is left when the job
// is over, also of what tried to stay. Use it for code that you trust.
package process
