package httpapi

import (
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// onlyKnown refuses a query that names what the operation does not take, or one thing
// twice: a filter that is misspelt would answer everything.
func (a *api) onlyKnown(ctx huma.Context, next func(huma.Context)) {
	u := ctx.URL()
	if u.RawQuery == "" {
		next(ctx)
		return
	}
	p := problem(http.StatusUnprocessableEntity, "the input is not valid")
	takes := ctx.Operation().Parameters
	for name, values := range u.Query() {
		i := slices.IndexFunc(takes, func(q *huma.Param) bool { return q.In == "query" && q.Name == name })
		switch {
		case i < 0:
			p.add("query."+name, "there is no such parameter here")
		case len(values) > 1 && (takes[i].Schema == nil || takes[i].Schema.Type != huma.TypeArray):
			p.add("query."+name, "it stands there twice")
		}
	}
	if len(p.Errors) == 0 {
		next(ctx)
		return
	}
	p.bound()
	_, w := humago.Unwrap(ctx)
	p.write(w)
}
