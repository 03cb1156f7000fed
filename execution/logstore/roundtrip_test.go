package logstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/logframe"
)

// written is a log as it should read.
type written struct {
	frames []byte
	text   string
	lines  []Line
}

func (w *written) add(s logframe.Stream, text string) {
	at := time.Unix(int64(len(w.lines)), 0).UTC()
	w.frames = logframe.Append(w.frames, logframe.Frame{Stream: s, Time: at, Text: []byte(text)})
	w.text += text
	for _, l := range strings.SplitAfter(text, "\n") {
		if l != "" {
			w.lines = append(w.lines, Line{at, s, int64(len(w.lines)) + 1, []byte(strings.TrimSuffix(l, "\n"))})
		}
	}
}

// textOf returns the text of lines from to to, as it was printed.
func (w *written) textOf(from, to int) string {
	all := strings.SplitAfter(w.text, "\n")
	from, to = min(max(from, 1), len(w.lines)+1), min(to, len(w.lines))
	if to < from {
		return ""
	}
	return strings.Join(all[from-1:to], "")
}

// drawLog draws a log: of nothing, of a few lines, or of several chunks.
func drawLog(t *rapid.T) *written {
	w := &written{}
	most := rapid.SampledFrom([]int{20, 20, 20, 20, 5000, 5000, 300_000}).Draw(t, "longest line")
	for i := range rapid.IntRange(0, 12).Draw(t, "frames") {
		var text strings.Builder
		for range rapid.IntRange(0, 5).Draw(t, "lines") {
			fmt.Fprintf(&text, "%s\n", strings.Repeat(rapid.SampledFrom([]string{"x", "é", "\xff", "\r", "\x00"}).Draw(t, "of"), rapid.IntRange(0, most).Draw(t, "length")))
		}
		if text.Len() <= logframe.MaxText && text.Len() > 0 {
			w.add(logframe.Stream(1+i%3), text.String())
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "ends within a line") == 0 {
		w.add(logframe.Stdout, "no line feed")
	}
	return w
}

// some yields b in pieces, and breaks off if it is told to.
type some struct {
	b     []byte
	piece int
	cut   bool
}

func (s *some) Read(p []byte) (int, error) {
	if len(s.b) == 0 {
		if s.cut {
			return 0, errors.New("the line is cut")
		}
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.piece)], s.b)
	s.b = s.b[n:]
	return n, nil
}

// again opens the store anew, as after a crash.
func again(t interface{ Fatal(...any) }, s *Store) *Store {
	next, err := Open(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// ask reads a log through the API.
func ask(s *Store, e ident.Exec, query string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/logs/x?"+query, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.Serve(w, r, "acme", e, ended)
	return w
}

// shown is a line as the API writes it.
type shown struct {
	Time   time.Time `json:"time"`
	Stream string    `json:"stream"`
	Line   string    `json:"line"`
	Number int64     `json:"number"`
}

// same fails unless lines as JSON are those.
func same(t *rapid.T, what, got string, want []Line) {
	t.Helper()
	in := json.NewDecoder(strings.NewReader(got))
	for i := 0; ; i++ {
		var l shown
		if err := in.Decode(&l); err == io.EOF {
			if i != len(want) {
				t.Fatalf("%s: %d lines, want %d", what, i, len(want))
			}
			return
		} else if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if i >= len(want) {
			t.Fatalf("%s: line %d is too many", what, l.Number)
		}
		if w := want[i]; l.Number != w.Number || l.Stream != w.Stream.String() || !l.Time.Equal(w.Time) || l.Line != strings.ToValidUTF8(string(w.Text), "\uFFFD") {
			t.Fatalf("%s: line %d is %.40q of %s, number %d; want %.40q of %s", what, w.Number, l.Line, l.Stream, l.Number, w.Text, w.Stream)
		}
	}
}

// TestALogReadsAsItWasWritten writes logs in pieces, through broken connections and
// crashes, and reads them in every way.
func TestALogReadsAsItWasWritten(t *testing.T) {
	s := openStore(t)
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		log, exec := drawLog(t), ident.Exec(fmt.Sprintf("exe_%d", n))
		w, err := s.Writer("acme", exec)
		if err != nil {
			t.Fatal(err)
		}
		for tries := 0; ; tries++ {
			rest := log.frames[w.Offset():]
			cut := tries < 4 && len(rest) > 0 && rapid.Bool().Draw(t, "breaks off")
			if cut {
				rest = rest[:rapid.IntRange(0, len(rest)).Draw(t, "after")]
			}
			err := w.Copy(t.Context(), &some{rest, rapid.SampledFrom([]int{1 << 20, 70_000, 4096, 13}).Draw(t, "piece"), cut})
			if cut != (err != nil) {
				t.Fatalf("copied: %v", err)
			}
			// Whoever reads meanwhile sees what is there.
			if got := ask(s, exec, "").Body.String(); !strings.HasPrefix(log.text, got) {
				t.Fatalf("%d bytes are there that were not written", len(got))
			}
			if !cut {
				break
			}
			if rapid.IntRange(0, 2).Draw(t, "crash") == 0 {
				s = again(t, s)
				if w, err = s.Writer("acme", exec); err != nil {
					t.Fatal(err)
				}
			}
		}
		index, info, err := w.Finish(true)
		if err != nil {
			t.Fatal(err)
		}
		if info.Lines != int64(len(log.lines)) || info.Bytes != int64(len(log.text)) {
			t.Fatalf("it has %+v, want %d lines, %d bytes", info, len(log.lines), len(log.text))
		}
		if err := s.cfg.DB.Write(t.Context(), index); err != nil {
			t.Fatal(err)
		}
		w.Release()
		read(t, s, exec, log)
	})
}

func read(t *rapid.T, s *Store, exec ident.Exec, log *written) {
	r := ask(s, exec, "")
	if r.Body.String() != log.text || r.Header().Get("X-Fragua-Lines") != strconv.Itoa(len(log.lines)) {
		t.Fatalf("%d bytes, %s lines; want %d and %d", r.Body.Len(), r.Header().Get("X-Fragua-Lines"), len(log.text), len(log.lines))
	}
	ndjson := func(query string) string { return ask(s, exec, query, "Accept", "application/x-ndjson").Body.String() }
	same(t, "all", ndjson(""), log.lines)
	last := len(log.lines)
	for range 3 {
		from, to := rapid.IntRange(1, last+2).Draw(t, "from"), rapid.IntRange(1, last+2).Draw(t, "to")
		q := fmt.Sprintf("from=%d&to=%d", from, to)
		if got, want := ask(s, exec, q).Body.String(), log.textOf(from, to); got != want {
			t.Fatalf("%s: %d bytes, want %d", q, len(got), len(want))
		}
		if got, want := ask(s, exec, q+"&follow=true").Body.String(), log.textOf(from, to); got != want {
			t.Fatalf("%s, followed: %d bytes, want %d", q, len(got), len(want))
		}
		same(t, q, ndjson(q), log.lines[min(from-1, last):max(min(from-1, last), min(to, last))])
		tail := rapid.IntRange(0, last+2).Draw(t, "tail")
		if got, want := ask(s, exec, fmt.Sprintf("tail=%d", tail)).Body.String(), log.textOf(last-tail+1, last); got != want {
			t.Fatalf("the last %d lines: %d bytes, want %d", tail, len(got), len(want))
		}
		same(t, "the last lines", ndjson(fmt.Sprintf("tail=%d", tail)), log.lines[max(0, last-tail):])
		var events []string
		for _, e := range strings.Split(ask(s, exec, "", "Accept", "text/event-stream", "Last-Event-ID", strconv.Itoa(from)).Body.String(), "\n\n") {
			if _, data, ok := strings.Cut(e, "\ndata: "); ok {
				events = append(events, data)
			}
		}
		same(t, "after an event", strings.Join(events, "\n"), log.lines[min(from, last):])
		if len(log.text) > 0 {
			a := rapid.IntRange(0, len(log.text)-1).Draw(t, "first byte")
			b := rapid.IntRange(a, len(log.text)-1).Draw(t, "last byte")
			if got := ask(s, exec, "", "Range", fmt.Sprintf("bytes=%d-%d", a, b)); got.Code != 206 || got.Body.String() != log.text[a:b+1] {
				t.Fatalf("bytes %d to %d: %d, %d bytes", a, b, got.Code, got.Body.Len())
			}
		}
	}
	if got := ask(s, exec, "to=9223372036854775807").Body.String(); got != log.text {
		t.Fatalf("up to the largest number: %d bytes", len(got))
	}
}

// TestAWriterHoldsLittle writes a long log, whose reader looks at how much is held.
func TestAWriterHoldsLittle(t *testing.T) {
	s := openStore(t)
	w, err := s.Writer("acme", "exe_1")
	if err != nil {
		t.Fatal(err)
	}
	frame := logframe.Append(nil, logframe.Frame{Stream: logframe.Stdout, Text: bytes.Repeat([]byte("0123456789abcde\n"), 60_000)})
	const frames = 30
	most := 0
	in := io.TeeReader(bytes.NewReader(bytes.Repeat(frame, frames)), watch(func() { most = max(most, w.log.pending()) }))
	if err := w.Copy(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if bound := chunkRaw + len(frame) + flushAfter; most > bound {
		t.Errorf("it holds %d bytes, want %d at most", most, bound)
	}
	if w.Offset() != int64(frames*len(frame)) {
		t.Errorf("it has %d bytes", w.Offset())
	}
}

// watch is called for whatever is written.
type watch func()

func (f watch) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}
