package console

import (
	"context"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"fragua.dev/fragua/internal/bus"
	"fragua.dev/fragua/internal/sqldb"
)

// TestOnTheRealBus has the room hear by the bus, and its readers read JetStream.
func TestOnTheRealBus(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	s, err := bus.OpenStream(t.Context(), bus.StreamConfig{Dir: t.TempDir(), Process: "test", Rooms: bus.Rooms, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	w := open(t, func(c *Config) { c.Tail = s })
	said := open(t, nil) // whose outbox stands for orchestration's
	b := bus.New(bus.Config{Log: log, Now: w.clock, Stream: s})
	b.Listen(w.Name(), w.DB(), w.Subscriptions()...)
	b.Carry("orchestration", said.DB())
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	server := httptest.NewServer(w.serve())
	t.Cleanup(server.Close)

	live := w.listen(server, "?subject=ci.job.>", nil)
	foreign := w.requested("foreign", 1)
	foreign.Tenant = "other"
	if err := said.DB().Write(context.Background(), func(tx *sqldb.Tx) error {
		return tx.Emit(w.requested("j1", 1), foreign, w.started("j1", 1), w.done("j1", 1))
	}); err != nil {
		t.Fatal(err)
	}
	id, typ, _, ok := live.next()
	if !ok || typ != "JobRequested" || live.jobs(2) != "j1 j1" {
		t.Errorf("%v %s %s", ok, id, typ)
	}
	if got := w.listen(server, "?follow=false", map[string]string{"Last-Event-ID": id}).jobs(5); got != "j1 j1 END" {
		t.Errorf("resumed after %s: %q", id, got)
	}
	if got := w.listen(server, "?follow=false&subject=ci.job.completed", nil).jobs(5); got != "j1 END" {
		t.Errorf("stored: %q", got)
	}
	for wrong, r := range map[string]*reader{
		"header.Last-Event-ID": w.listen(server, "?after=0", map[string]string{"Last-Event-ID": "nowhere"}), "query.after": w.listen(server, "?after=nowhere", nil),
	} {
		body, err := io.ReadAll(r.resp.Body)
		if err != nil || r.resp.StatusCode != 422 || !strings.Contains(string(body), `"location":"`+wrong+`"`) {
			t.Errorf("a place that is none, in %s: %d %s %v", wrong, r.resp.StatusCode, body, err)
		}
	}
	until(t, "the job has not succeeded", func() bool {
		_, l := w.list("acme", "?state=SUCCEEDED")
		return ids(l) == "j1"
	})
}
