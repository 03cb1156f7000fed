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
// nothing. A range of anything but bytes is passed over, as RFC 9110 has it, which
// http answers as one that cannot be had.
func ServeContent(w http.ResponseWriter, r *http.Request, content io.ReadSeeker) {
	if unit, ranges, _ := strings.Cut(r.Header.Get("Range"), "="); unit != "bytes" && unit != "" {
		r = r.Clone(r.Context())
		if r.Header.Del("Range"); strings.EqualFold(unit, "bytes") {
			r.Header.Set("Range", "bytes="+ranges)
		}
	}
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
