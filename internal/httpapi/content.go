package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// ServeContent is http's, for content without a name and a time. The last no bytes
// are a range that cannot be had, which http answers with a part of less than
// nothing.
func ServeContent(w http.ResponseWriter, r *http.Request, content io.ReadSeeker) {
	if last, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes=-"); ok && last != "" && strings.Trim(last, "0 ") == "" {
		size, err := content.Seek(0, io.SeekEnd)
		if err != nil {
			http.Error(w, "the content cannot be read", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		http.Error(w, "a range of no bytes", http.StatusRequestedRangeNotSatisfiable)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, content)
}
