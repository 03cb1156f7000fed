package eventdocs

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHandler(t *testing.T) {
	rec := httptest.NewRecorder()
	Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/asyncapi.yaml", nil))
	if body := rec.Body.String(); rec.Code != 200 || rec.Header().Get("Content-Type") != "application/yaml" || !strings.Contains(body, "address: ci.job.requested") {
		t.Errorf("%d %v %.200s", rec.Code, rec.Header(), body)
	}
}
