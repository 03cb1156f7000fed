package httpapi

import (
	"io"
	"maps"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// New returns the API whose operations are served by mux, and whose description
// stands at /openapi.json, /openapi.yaml and /docs.
func New(mux *http.ServeMux, version string) huma.API {
	configure()
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Fragua", Version: version,
				Description: "A CI/CD platform that a team runs itself. Errors are RFC 9457 problem details; " +
					"listings are {items, next_cursor}; times are RFC 3339 in UTC; the tenant is the token's.",
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", schemaName),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"bearer": {Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "A token of the issuer that the server trusts"},
				},
			},
			Security: []map[string][]string{{"bearer": {}}},
		},
		Formats:       map[string]huma.Format{mediaJSON: format},
		DefaultFormat: mediaJSON,
	}
	a := &api{API: humago.New(mux, config), config: config}
	a.UseMiddleware(a.onlyKnown)
	describe(mux, a.OpenAPI())
	return a
}

// configure sets what huma keeps for the whole process.
var configure = sync.OnceFunc(func() {
	huma.ValidateStrictCasing = true
	huma.NewError = newProblem
	huma.NewErrorWithContext = newProblemIn
})

const (
	mediaJSON    = "application/json"
	mediaProblem = "application/problem+json"
)

// api is huma's, with JSON as the only language and this package's bounds.
type api struct {
	huma.API
	config huma.Config
}

// Config lets huma find its settings through the wrapper.
func (a *api) Config() huma.Config { return a.config }

// Negotiate answers JSON, whatever the client would like better.
func (a *api) Negotiate(string) (string, error) { return mediaJSON, nil }

// Marshal writes v as JSON.
func (a *api) Marshal(w io.Writer, _ string, v any) error { return format.Marshal(w, v) }

// Unmarshal reads JSON, and refuses any other type of content.
func (a *api) Unmarshal(contentType string, data []byte, v any) error {
	if !isJSON(contentType) {
		return errNotJSON
	}
	return format.Unmarshal(data, v)
}

// DocumentOperation adds op to the description. Bodies are bounded, and waits
// given a deadline, by [Handler]: of huma's own bounds, the deadline would also
// end a handler that waits after it has read its body.
func (a *api) DocumentOperation(op *huma.Operation) {
	const unset = 1 << 20 // what huma puts where nothing was asked for
	op.BodyReadTimeout = 0
	if op.MaxBodyBytes == unset {
		op.MaxBodyBytes = -1
	}
	also, _ := op.Metadata[alsoKey].(map[string]string)
	for status, when := range also {
		op.Responses[status] = &huma.Response{Description: when, Content: op.Responses[strconv.Itoa(op.DefaultStatus)].Content}
	}
	if op.Responses["default"] == nil { // huma says it of those alone that have one answer
		op.Responses["default"] = &huma.Response{Description: "Error", Content: map[string]*huma.MediaType{
			mediaProblem: {Schema: a.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "")},
		}}
	}
	if !op.Hidden {
		a.OpenAPI().AddOperation(op)
	}
}

const alsoKey = "also"

// Again describes that op makes something once: who asks for the same again is
// answered the same, with 200.
func Again(op huma.Operation) huma.Operation {
	return Also(op, http.StatusOK, "It was asked for before, and there it is")
}

// Also describes that op answers another status than its usual one, with the same
// kind of body.
func Also(op huma.Operation, status int, when string) huma.Operation {
	op.Metadata = maps.Clone(op.Metadata)
	if op.Metadata == nil {
		op.Metadata = map[string]any{}
	}
	op.Metadata[alsoKey] = map[string]string{strconv.Itoa(status): when}
	return op
}

// isJSON says whether a content type is JSON in UTF-8. None is.
func isJSON(contentType string) bool {
	if contentType == "" || contentType == mediaJSON {
		return true
	}
	media, params, _ := strings.Cut(strings.ToLower(contentType), ";")
	if media = strings.TrimSpace(media); media != mediaJSON && !(strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json")) {
		return false
	}
	for p := range strings.SplitSeq(params, ";") {
		if charset, ok := strings.CutPrefix(strings.TrimSpace(p), "charset="); ok && strings.Trim(charset, `"`) != "utf-8" {
			return false
		}
	}
	return true
}

// Page is the part of a listing that is asked for.
type Page struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"How many items to answer at most"`
	Cursor string `query:"cursor" maxLength:"512" doc:"next_cursor of the page before"`
}
