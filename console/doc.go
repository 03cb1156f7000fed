// Package console is the backend of the web console: jobs as people look at them,
// from a read model of its own that is built from what the house tells, and the
// tenant's events as they happen.
package console
