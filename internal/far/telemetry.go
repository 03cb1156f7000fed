package far

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/peer"
)

// handTime is how long spans and alerts wait for the telemetry room; then they are
// dropped.
const handTime = 2 * time.Second

const telemetry = "telemetry"

// Telemetry is the telemetry room of another process.
type Telemetry struct {
	Caller *peer.Caller
	Log    *slog.Logger
}

// AnswerTelemetry has h take over spans and alerts of other processes.
func AnswerTelemetry(h *peer.Hall, keep func([]event.Span), alert func(e event.Event, room string, err error)) {
	peer.Answer(h, "spans", nil, func(_ context.Context, _ string, spans []event.Span) (struct{}, error) {
		keep(spans)
		return struct{}{}, nil
	})
	peer.Answer(h, "alert", nil, func(_ context.Context, _ string, a alarm) (struct{}, error) {
		alert(a.Event, a.Room, errors.New(a.Cause))
		return struct{}{}, nil
	})
}

// Keep hands spans over. It runs on observe's own goroutine, whose queue is bounded.
func (t Telemetry) Keep(spans []event.Span) {
	ctx, cancel := context.WithTimeout(context.Background(), handTime)
	defer cancel()
	if _, err := peer.Ask[struct{}](ctx, t.Caller, telemetry, "spans", spans); err != nil {
		t.Log.Debug("spans are lost", "spans", len(spans), "error", err)
	}
}

type alarm struct {
	Event event.Event `json:"event"`
	Room  string      `json:"room"`
	Cause string      `json:"cause"`
}

// Alert tells that an event was set aside.
func (t Telemetry) Alert(e event.Event, room string, cause error) {
	ctx, cancel := context.WithTimeout(context.Background(), handTime)
	defer cancel()
	if _, err := peer.Ask[struct{}](ctx, t.Caller, telemetry, "alert", alarm{e, room, cause.Error()}); err != nil {
		t.Log.Error("an alert could not be raised", "event", e.ID, "room", room, "error", err)
	}
}
