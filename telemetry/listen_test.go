package telemetry

import (
	"strings"
	"testing"

	"fragua.dev/fragua/contract/event"
)

// TestALostJobIsAnAlert has one job lost for good, and one that is tried again.
func TestALostJobIsAnAlert(t *testing.T) {
	w := open(t, nil)
	s := tell(w)
	for _, j := range []string{"lost", "again"} {
		s.request(j, 1)
		say(s, event.JobTerminated, j, 1, event.JobFault{Job: "lost", Attempt: 1, Final: j == "lost", Message: "its worker failed"})
	}
	rows, err := w.DB().Outbox(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var alerts []event.Alert
	for _, r := range rows {
		if r.Event.Subject == event.AlertRaised.Subject {
			a, err := event.AlertRaised.Read(r.Event)
			if err != nil {
				t.Fatal(err)
			}
			alerts = append(alerts, a)
		}
	}
	if len(alerts) != 1 || alerts[0].Severity != Warning || !strings.Contains(alerts[0].Message, "job lost: its worker failed") {
		t.Errorf("%+v", alerts)
	}
}

// TestOpenMetrics holds the text for scrapers to what OpenMetrics asks of it: every
// family once, its samples together, and no two families of one name.
func TestOpenMetrics(t *testing.T) {
	w := open(t, nil)
	_, resp := w.call("acme", "/metrics", "application/openmetrics-text", nil)
	body := resp.Body.String()
	seen, family := map[string]bool{}, ""
	for line := range strings.Lines(body) {
		f := strings.Fields(line)
		switch {
		case len(f) > 2 && f[0] == "#" && (f[1] == "HELP" || f[1] == "TYPE" || f[1] == "UNIT"):
			if said := f[1] + " " + f[2]; seen[said] || f[2] != family && seen["TYPE "+f[2]] {
				t.Errorf("the family %s comes twice", f[2])
			} else {
				seen[said] = true
			}
			family = f[2]
		case len(f) > 0 && f[0] != "#" && !strings.HasPrefix(f[0], family):
			t.Errorf("a sample of another family than %s: %s", family, line)
		}
	}
	if len(seen) < 40 || !strings.HasSuffix(body, "\n# EOF\n") {
		t.Errorf("%d descriptions, ending in %q", len(seen), body[max(0, len(body)-20):])
	}
}
