package logstore

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fragua.dev/fragua/contract/logframe"
)

// keepLongLines writes a log of lines of a MiB that JSON makes six times as long.
func keepLongLines(t *testing.T, s *Store, lines int) {
	t.Helper()
	w, err := s.Writer("acme", "exe_1")
	if err != nil {
		t.Fatal(err)
	}
	text := append(bytes.Repeat([]byte{1}, 1<<20), '\n')
	var frames []byte
	for range lines {
		frames = logframe.Append(frames, logframe.Frame{Stream: logframe.Stdout, Time: time.Unix(1, 0), Text: text})
	}
	if err := w.Copy(t.Context(), bytes.NewReader(frames)); err != nil {
		t.Fatal(err)
	}
	seal(t, s, w, true)
}

// measured notes the longest of the writes to it.
type measured struct {
	*httptest.ResponseRecorder
	most int
}

func (m *measured) Write(p []byte) (int, error) {
	m.most = max(m.most, len(p))
	return m.ResponseRecorder.Write(p)
}

// TestALongLineIsWrittenInPieces reads lines of which each is many windows.
func TestALongLineIsWrittenInPieces(t *testing.T) {
	s := openStore(t)
	keepLongLines(t, s, 2)
	for accept, begin := range map[string]string{"application/x-ndjson": "", "text/event-stream": "data: "} {
		r := httptest.NewRequest(http.MethodGet, "/logs/exe_1", nil)
		r.Header.Set("Accept", accept)
		w := &measured{ResponseRecorder: httptest.NewRecorder()}
		s.Serve(w, r, "acme", "exe_1", ended)
		if w.most > window+1024 {
			t.Errorf("%s: %d bytes at once", accept, w.most)
		}
		n := 0
		for line := range strings.Lines(w.Body.String()) {
			text, ok := strings.CutPrefix(strings.TrimSpace(line), begin)
			if !ok || text == "" {
				continue
			}
			var l shown
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				t.Fatal(err)
			}
			if n++; l.Number != int64(n) || l.Stream != "stdout" || l.Line != strings.Repeat("\x01", 1<<20) {
				t.Errorf("%s: line %d of %s has %d bytes", accept, l.Number, l.Stream, len(l.Line))
			}
		}
		if n != 2 {
			t.Errorf("%s: %d lines", accept, n)
		}
	}
}

// TestReadersOfLongLinesHoldLittle has fifty of them wait that never read.
func TestReadersOfLongLinesHoldLittle(t *testing.T) {
	s := openStore(t)
	keepLongLines(t, s, 4)
	const readers = 50
	grown := heldBy(s, readers, func(i int) *http.Request {
		r := httptest.NewRequest(http.MethodGet, "/logs/exe_1", nil)
		r.Header.Set("Accept", []string{"application/x-ndjson", "text/event-stream"}[i%2])
		return r
	})
	if most := int64(8<<20 + readers*3*window); grown > most { // the chunks that are cached, and what each has
		t.Errorf("%d readers hold %d bytes, want %d at most", readers, grown, most)
	}
}

// TestTextIsEscapedInPiecesAsAtOnce compares pieces with what encoding/json writes.
func TestTextIsEscapedInPiecesAsAtOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOf(rapid.SampledFrom([]string{"plain", "é", "𝄞", "\u2028", "\xff", "\xf0\x9d", "\uFFFD", "<&>", `"\`, "\x00\b\f\n\r\t\x1f\x7f", " "}))
		text := []byte(strings.Join(words.Draw(t, "words"), ""))
		most := rapid.IntRange(1, 20).Draw(t, "most")
		got := []byte{'"'}
		for at := 0; at < len(text); {
			piece, n := appendJSON(nil, text[at:], most)
			if n == 0 || len(piece) > most+6 {
				t.Fatalf("%d bytes of %d, %d of text", len(piece), most, n)
			}
			got, at = append(got, piece...), at+n
		}
		want, err := json.Marshal(strings.ToValidUTF8(string(text), "\uFFFD"))
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, '"'); !bytes.Equal(got, want) {
			t.Fatalf("%q is %s, want %s", text, got, want)
		}
	})
}
