package event

import (
	"regexp"
	"testing"
	"time"
)

var traceparent = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-01$`)

// TestEveryEventHasACause says things that no room gave a cause.
func TestEveryEventHasACause(t *testing.T) {
	say := func(a About) Event {
		a.Tenant, a.Key, a.At = "acme", "n1", time.Unix(1, 0)
		return CapacityUpdated.Event(a, Capacity{Node: "n1"})
	}
	e := say(About{Twist: "1"})
	if e.CorrelationID == "" || !traceparent.MatchString(e.TraceParent) {
		t.Errorf("%q, %q", e.CorrelationID, e.TraceParent)
	}
	if again := say(About{Twist: "1"}); again.CorrelationID != e.CorrelationID || again.TraceParent != e.TraceParent {
		t.Errorf("said again: %q, %q", again.CorrelationID, again.TraceParent)
	}
	if other := say(About{Twist: "2"}); other.CorrelationID == e.CorrelationID || other.TraceParent == e.TraceParent {
		t.Error("two events have the same cause")
	}
	if own := say(About{Correlation: "c", TraceParent: "t"}); own.CorrelationID != "c" || own.TraceParent != "t" {
		t.Errorf("%q, %q", own.CorrelationID, own.TraceParent)
	}
}
