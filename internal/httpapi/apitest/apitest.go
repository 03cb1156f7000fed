// Package apitest lets tests of a room call its API as the house would.
package apitest

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"

	"fragua.dev/fragua/contract/authz"
	"fragua.dev/fragua/contract/ident"
)

// Permit lets everyone do everything, for tests of something else than who may.
type Permit struct{}

// Decide permits.
func (Permit) Decide(context.Context, authz.Question) authz.Answer {
	return authz.Answer{Permit: true}
}

// As returns a context of a caller of a tenant with every scope.
func As(ctx context.Context, tenant string) context.Context {
	return authz.With(ctx, authz.Principal{Sub: "ana", Tenant: ident.Tenant(tenant), Scopes: []string{"*"}})
}

// Call speaks to an API for a tenant. kind is the body's media type.
func Call(api http.Handler, tenant, method, path, kind string, body io.Reader) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, body)
	r.Header.Set("Content-Type", kind)
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r.WithContext(As(r.Context(), tenant)))
	return w
}
