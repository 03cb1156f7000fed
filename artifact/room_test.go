package artifact

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/internal/httpapi"
	"fragua.dev/fragua/internal/sqldb"
)

// asked permits everything, and remembers why it was asked.
type asked struct{ questions []authz.Question }

func (a *asked) Decide(_ context.Context, q authz.Question) authz.Answer {
	a.questions = append(a.questions, q)
	return authz.Answer{Permit: true}
}

// TestEventsFollowFromTheirCause keeps an artifact for another room, and looks
// after it through the API.
func TestEventsFollowFromTheirCause(t *testing.T) {
	decider := &asked{}
	r, err := Open(t.Context(), Config{
		Dir: t.TempDir(), Now: time.Now, IDs: ident.NewSource(time.Now), Log: slog.New(slog.DiscardHandler), Decider: decider, Principal: authz.Principal{Sub: "service:artifact"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	said := map[string]event.Event{}
	r.DB().OnCommit(func(rows []sqldb.Row) {
		for _, row := range rows {
			said[row.Event.Type] = row.Event
		}
	})
	mux := http.NewServeMux()
	r.Routes(httpapi.New(mux, "test"))
	ctx := event.Because(authz.With(t.Context(), authz.Principal{Sub: "ann", Tenant: "acme"}), event.Cause{Correlation: "asked", TraceParent: "traced"})
	if err := r.Keeper().Keep(ctx, "acme", spec.ArtifactRef{Repository: "r", Name: "app", Version: "1"}, strings.NewReader("app")); err != nil {
		t.Fatal(err)
	}
	for path, body := range map[string]string{"promote": `{"env":"test"}`, "validate": ""} {
		q := httptest.NewRequest(http.MethodPost, "/artifacts/r/app/1/"+path, strings.NewReader(body)).WithContext(ctx)
		q.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		if mux.ServeHTTP(w, q); w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	for _, kind := range []string{"ArtifactUploaded", "ArtifactPromoted", "ArtifactValidated"} {
		if e := said[kind]; e.CorrelationID != "asked" || e.TraceParent != "traced" {
			t.Errorf("%s: %q, %q", kind, e.CorrelationID, e.TraceParent)
		}
	}
	for _, q := range decider.questions {
		if q.Correlation != "asked" || q.TraceParent != "traced" {
			t.Errorf("%s: %q, %q", q.Action, q.Correlation, q.TraceParent)
		}
	}
}
