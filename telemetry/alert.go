package telemetry

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/observe"
	"fragua.dev/fragua/internal/sqldb"
)

// The severities of an alert.
const (
	Info     = "info"
	Warning  = "warning"
	Critical = "critical"
)

const (
	alertBurst   = 30              // alerts that may come at once
	alertEvery   = 2 * time.Second // and then one in so long
	alertTime    = 10 * time.Second
	maxMessage   = 1024 // bytes
	maxAlertTags = 16
)

// Alert raises an alert because room could not handle e, for the tenant of e. It
// is what the bus calls; what fails in here is logged.
func (r *Room) Alert(e event.Event, room string, err error) {
	r.cfg.Observe.Metrics().SetAside(room)
	if e.Subject == event.AlertRaised.Subject { // an alert about an alert would go round
		r.cfg.Log.Error("an alert was set aside", "event", e.ID, "room", room, "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), alertTime)
	defer cancel()
	raised := r.raise(ctx, e.Tenant, string(e.ID)+":"+room, Critical, fmt.Sprintf("%s could not handle %s, which is set aside: %v", room, e.Type, err),
		map[string]string{"event_id": string(e.ID), "event_type": e.Type, "room": room, "correlation_id": e.CorrelationID})
	if raised != nil {
		r.cfg.Log.Error("an alert could not be raised", "event", e.ID, "room", room, "error", raised)
	}
}

// Raise asks whoever runs the house to look. The tags, at most 16, say where;
// neither they nor the message may hold a secret. Of a flood of alerts one every
// two seconds gets through, and says how many did not.
func (r *Room) Raise(ctx context.Context, severity, message string, tags map[string]string) error {
	return r.raise(ctx, house, r.cfg.IDs("alr"), severity, message, tags)
}

func (r *Room) raise(ctx context.Context, t ident.Tenant, key, severity, message string, tags map[string]string) error {
	switch severity {
	case Info, Warning, Critical:
	default:
		severity = Critical
	}
	r.cfg.Observe.Metrics().Alert(severity)
	ok, missed := r.cap.take()
	if !ok {
		return nil
	}
	if missed > 0 {
		message = fmt.Sprintf("%s (and %d more alerts)", clip(message, maxMessage-32), missed)
	}
	if len(tags) > maxAlertTags {
		return fmt.Errorf("telemetry: an alert has at most %d tags", maxAlertTags)
	}
	short := make(map[string]string, len(tags))
	for k, v := range tags {
		short[clip(k, 128)] = clip(v, 512)
	}
	about := event.About{Tenant: t, Key: key, At: r.cfg.Now(), Correlation: short["correlation_id"], TraceParent: observe.TraceParent(ctx)}
	e := event.AlertRaised.Event(about, event.Alert{Alert: ident.Alert(r.cfg.IDs("alr")), Severity: severity, Message: clip(message, maxMessage), Tags: short})
	if err := r.db.Write(ctx, func(tx *sqldb.Tx) error { return tx.Emit(e) }); err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	return nil
}

// clip shortens s to at most n bytes of whole characters.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}

// limiter lets a burst pass, and then one every so often.
type limiter struct {
	now    func() time.Time
	mu     sync.Mutex
	left   int
	last   time.Time
	missed int
}

// take says whether one more may pass, and how many could not since the last.
func (l *limiter) take() (ok bool, missed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if n := int(now.Sub(l.last) / alertEvery); l.last.IsZero() || n >= alertBurst {
		l.left, l.last = alertBurst, now
	} else if n > 0 {
		l.left, l.last = min(alertBurst, l.left+n), l.last.Add(time.Duration(n)*alertEvery)
	}
	if l.left == 0 {
		l.missed++
		return false, 0
	}
	l.left--
	missed, l.missed = l.missed, 0
	return true, missed
}
