// Package telemetry keeps what the house tells of itself, and serves it: spans
// of recent runs in a database of its own, numbers in memory, and alerts as
// events.
//
// Nothing here may slow a job. Spans come in batches that are already off
// everybody's way; numbers are counted in memory and written beside the spans.
// Whatever comes faster than it can be kept is dropped, and the drops are counted.
package telemetry
