// Package observe is how the house looks at itself: log records, spans and
// numbers. Rooms name what they do here, and never learn where it goes; the
// telemetry room takes it from here, and keeps it.
package observe
