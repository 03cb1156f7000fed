package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"fragua.dev/fragua/internal/client"
)

func TestWhatIsDownloadedHasTheSumThatTheServerNames(t *testing.T) {
	sum := sha256.Sum256([]byte("content"))
	good := hex.EncodeToString(sum[:])
	for tag, want := range map[string]string{`"` + good + `"`: "", `W/"` + good + `"`: "", `"` + strings.Repeat("0", 64) + `"`: "not the artifact", "": "names none"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", tag)
			io.WriteString(w, "content")
		}))
		var got strings.Builder
		err := receive(t.Context(), client.New(server.URL, ""), "/x", &got)
		server.Close()
		if want == "" && (err != nil || got.String() != "content") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %q, %v", tag, &got, err)
		}
	}
}
