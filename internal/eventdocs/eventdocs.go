package eventdocs

import (
	_ "embed"
	"net/http"
	"strconv"
)

//go:generate go test ./describe -update

// AsyncAPI describes the events, in AsyncAPI 3.0.
//
//go:embed asyncapi.yaml
var AsyncAPI []byte

// Handler answers with [AsyncAPI].
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		w.Header().Set("Content-Length", strconv.Itoa(len(AsyncAPI)))
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(AsyncAPI) // a client that has gone is told nothing
	})
}
