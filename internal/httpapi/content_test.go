package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRanges(t *testing.T) {
	for ask, want := range map[string]struct {
		status      int
		place, text string
	}{
		"bytes=-0":  {http.StatusRequestedRangeNotSatisfiable, "bytes */5", ""},
		"bytes=-00": {http.StatusRequestedRangeNotSatisfiable, "bytes */5", ""},
		"bytes=9-":  {http.StatusRequestedRangeNotSatisfiable, "bytes */5", ""},
		"bytes=-2":  {http.StatusPartialContent, "bytes 3-4/5", "lo"},
		"bytes=-10": {http.StatusPartialContent, "bytes 0-4/5", "hello"},
		"":          {http.StatusOK, "", "hello"},
		"lines=1-2": {http.StatusOK, "", "hello"},
		"lines":     {http.StatusOK, "", "hello"},
		"Bytes=1-2": {http.StatusPartialContent, "bytes 1-2/5", "el"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Range", ask)
		w := httptest.NewRecorder()
		w.Header().Set("Content-Type", "text/plain")
		ServeContent(&writer{ResponseWriter: w}, r, strings.NewReader("hello"))
		if w.Code != want.status || w.Header().Get("Content-Range") != want.place || want.text != "" && w.Body.String() != want.text {
			t.Errorf("%q: %d, %q, %q", ask, w.Code, w.Header().Get("Content-Range"), w.Body)
		}
		if want.status >= 400 && w.Header().Get("Content-Type") != mediaProblem {
			t.Errorf("%q: %s", ask, w.Header().Get("Content-Type"))
		}
	}
}
