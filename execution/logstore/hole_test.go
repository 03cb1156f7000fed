package logstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/logframe"
)

// TestAHoleIsShownAsAHole damages one chunk of several.
func TestAHoleIsShownAsAHole(t *testing.T) {
	s := openStore(t)
	text := keep(t, s, 5<<20)
	l, err := s.find(t.Context(), "acme", "exe_1")
	if err != nil {
		t.Fatal(err)
	}
	if len(l.chunks) < 4 {
		t.Fatalf("%d chunks", len(l.chunks))
	}
	hole := l.chunks[1]
	l.release()
	f, err := os.OpenFile(s.file("acme", "exe_1"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damage"), hole.at+int64(hole.packed)/2); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s = again(t, s)
	got := ask(s, "exe_1", "").Body.String()
	if len(got) != len(text) {
		t.Fatalf("%d bytes, want %d: places in the log have moved", len(got), len(text))
	}
	before, in, after := got[:hole.text], got[hole.text:endText(hole)], got[endText(hole):]
	if before != text[:hole.text] || after != text[endText(hole):] {
		t.Error("what is whole reads otherwise")
	}
	said := fmt.Sprintf("… %d lines are missing: ", hole.lines)
	if !strings.HasPrefix(in, said) || strings.Count(in, said) != 1 {
		t.Errorf("the hole reads as %.80q", in)
	}
	// By lines, too: one says how many are missing, and the next has its number.
	lines := strings.Split(ask(s, "exe_1", fmt.Sprintf("from=%d&to=%d", hole.line-1, endLine(hole)), "Accept", "application/x-ndjson").Body.String(), "\n")
	if len(lines) != 4 || !strings.Contains(lines[1], said) || !strings.Contains(lines[1], `"stream":"fragua"`) || !strings.Contains(lines[2], fmt.Sprintf(`"number":%d`, endLine(hole))) {
		t.Errorf("lines around the hole: %q", lines)
	}
	// Ranges beyond it are whole.
	if got := ask(s, "exe_1", "", "Range", fmt.Sprintf("bytes=%d-", endText(hole))).Body.String(); got != text[endText(hole):] {
		t.Error("a range after the hole reads otherwise")
	}
}

// TestAnEndThatIsGoneIsAHole cuts the file of a log that has ended.
func TestAnEndThatIsGoneIsAHole(t *testing.T) {
	s := openStore(t)
	text := keep(t, s, 4<<20)
	all := int64(strings.Count(text, "\n"))
	l, err := s.find(t.Context(), "acme", "exe_1")
	if err != nil {
		t.Fatal(err)
	}
	chunks := l.chunks
	l.release()
	for _, kept := range []int{len(chunks) - 1, 1, 0} {
		first := chunks[kept]
		if err := os.Truncate(s.file("acme", "exe_1"), first.at+int64(first.packed)/2); err != nil {
			t.Fatal(err)
		}
		s = again(t, s)
		said := fmt.Sprintf("… %d lines are missing: ", all+1-first.line)
		r := ask(s, "exe_1", "")
		got := r.Body.String()
		if len(got) != len(text) || got[:first.text] != text[:first.text] || !strings.HasPrefix(got[first.text:], said) || r.Header().Get("X-Fragua-Lines") != fmt.Sprint(all) {
			t.Errorf("with %d chunks of %d: %d bytes, want %d; then %.60q", kept, len(chunks), len(got), len(text), got[min(int(first.text), len(got)):])
		}
		if got := ask(s, "exe_1", "", "Accept", "application/x-ndjson").Body.String(); int64(strings.Count(got, "\n")) != first.line || !strings.Contains(got, said) {
			t.Errorf("with %d chunks of %d there are %d lines", kept, len(chunks), strings.Count(got, "\n"))
		}
		for _, query := range []string{"tail=3", "tail=3&follow=true", fmt.Sprintf("from=%d&to=%d", all-3, all-2), fmt.Sprintf("from=%d&to=%d&follow=true", all-3, all-2)} {
			if got := ask(s, "exe_1", query).Body.String(); !strings.Contains(got, said) {
				t.Errorf("with %d chunks of %d, %s says nothing of it: %.60q", kept, len(chunks), query, got)
			}
		}
	}
	if err := os.Remove(s.file("acme", "exe_1")); err != nil {
		t.Fatal(err)
	}
	if r := ask(s, "exe_1", ""); r.Code != 409 || r.Header().Get("Content-Type") != "application/problem+json" || !strings.Contains(r.Body.String(), "the file of this log is gone") {
		t.Errorf("without its file: %d %s", r.Code, r.Body)
	}
}

// TestWhatWasTornOffIsWrittenAgain cuts a file within its last chunk, as a crash does.
func TestWhatWasTornOffIsWrittenAgain(t *testing.T) {
	s := openStore(t)
	w, err := s.Writer("acme", "exe_1")
	if err != nil {
		t.Fatal(err)
	}
	log := &written{}
	for i := range 12 {
		log.add(logframe.Stderr, strings.Repeat(fmt.Sprintf("line %d\n", i), 40_000))
	}
	if err := w.Copy(t.Context(), &some{log.frames, 1 << 20, false}); err != nil {
		t.Fatal(err)
	}
	w.log.mu.Lock()
	chunks := w.log.chunks
	w.log.mu.Unlock()
	last := chunks[len(chunks)-1]
	for _, size := range []int64{last.at + int64(last.packed) - 1, last.at, last.at - 1, last.at - headLen} {
		if err := os.Truncate(s.file("acme", "exe_1"), size); err != nil {
			t.Fatal(err)
		}
		s = again(t, s)
		if w, err = s.Writer("acme", "exe_1"); err != nil {
			t.Fatal(err)
		}
		if w.Offset() != last.raw {
			t.Fatalf("goes on at %d, want %d", w.Offset(), last.raw)
		}
		if err := w.Copy(t.Context(), &some{log.frames[w.Offset():], 70_000, false}); err != nil {
			t.Fatal(err)
		}
		if got := ask(s, "exe_1", "").Body.String(); got != log.text {
			t.Fatalf("%d bytes, want %d", len(got), len(log.text))
		}
	}
}

func TestALogWhoseWorkerWasLostSaysSo(t *testing.T) {
	s := openStore(t)
	w, err := s.Writer("acme", "exe_1")
	if err != nil {
		t.Fatal(err)
	}
	log := &written{}
	log.add(logframe.Stdout, "a\nb\n")
	if err := w.Copy(t.Context(), &some{log.frames[:len(log.frames)-1], 5, true}); err == nil {
		t.Error("half a frame was taken")
	}
	if err := w.Copy(t.Context(), &some{log.frames, 5, false}); err != nil {
		t.Fatal(err)
	}
	if info := seal(t, s, w, false); info.Lines != 3 {
		t.Fatal(info)
	}
	if got := ask(s, "exe_1", "").Body.String(); !strings.HasPrefix(got, "a\nb\n… the log ends here") || strings.Count(got, "\n") != 3 {
		t.Errorf("it reads %q", got)
	}
}

func TestBytesThatAreNoFramesAreRefused(t *testing.T) {
	s := openStore(t)
	w, err := s.Writer("acme", "exe_1")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Copy(t.Context(), &some{[]byte(strings.Repeat("\x09", 100)), 100, false}); !errors.Is(err, logframe.ErrCorrupt) {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"..", "a/b", ""} {
		if _, err := s.Writer("acme", ident.Exec(name)); err == nil {
			t.Errorf("%q is the name of a log", name)
		}
	}
}

// TestFollowersSeeEveryLineOnce follows a log in each format while it is written.
func TestFollowersSeeEveryLineOnce(t *testing.T) {
	s := openStore(t)
	w, err := s.Writer("acme", "exe_1")
	if err != nil {
		t.Fatal(err)
	}
	var (
		all     sync.WaitGroup
		got     [5]string
		queries = []string{"follow=true", "follow=true&from=4000", "follow=true&to=3", "follow=true", "follow=true&from=4000&to=4001"}
		accept  = []string{"text/plain", "text/plain", "text/plain", "application/x-ndjson", "text/plain"}
	)
	for i := range queries {
		all.Go(func() { got[i] = ask(s, "exe_1", queries[i], "Accept", accept[i]).Body.String() })
	}
	log := &written{}
	for i := range 50 {
		at := len(log.frames)
		log.add(logframe.Stdout, strings.Repeat(fmt.Sprintf("line of %d %s\n", i, strings.Repeat("x", 300)), 100))
		if err := w.Copy(t.Context(), &some{log.frames[at:], 5000, false}); err != nil {
			t.Fatal(err)
		}
	}
	seal(t, s, w, true)
	all.Wait()
	for i, want := range map[int]string{0: log.text, 1: log.textOf(4000, 5000), 2: log.textOf(1, 3), 4: log.textOf(4000, 4001)} {
		if got[i] != want {
			t.Errorf("%s: %d bytes, want %d", queries[i], len(got[i]), len(want))
		}
	}
	if n := strings.Count(got[3], "\n"); n != len(log.lines) || !strings.Contains(got[3], fmt.Sprintf(`"number":%d}`, n)) {
		t.Errorf("%d lines, want %d", n, len(log.lines))
	}
}

// TestADiskThatHasRoomAgainTakesTheLog ends a log while nothing can be written.
func TestADiskThatHasRoomAgainTakesTheLog(t *testing.T) {
	for name, whole := range map[string]bool{"whole": true, "of a lost worker": false} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			w, err := s.Writer("acme", "exe_1")
			if err != nil {
				t.Fatal(err)
			}
			log := &written{}
			log.add(logframe.Stdout, strings.Repeat("a line\n", 2*inlineMax))
			if err := w.Copy(t.Context(), &some{log.frames, 1 << 20, false}); err != nil {
				t.Fatal(err)
			}
			folder := filepath.Dir(s.file("acme", "exe_1"))
			if err := os.WriteFile(folder, nil, 0o600); err != nil { // where the folder belongs
				t.Fatal(err)
			}
			for range 3 {
				if _, _, err := w.Finish(whole); err == nil {
					t.Fatal("it was written nowhere")
				}
			}
			if err := os.Remove(folder); err != nil {
				t.Fatal(err)
			}
			seal(t, s, w, whole)
			got := ask(s, "exe_1", "").Body.String()
			rest, kept := strings.CutPrefix(got, log.text)
			if !kept || strings.Count(rest, "the log ends here") != map[bool]int{true: 0, false: 1}[whole] {
				t.Errorf("%d bytes of %d, then %.200q", len(got)-len(rest), len(log.text), rest)
			}
		})
	}
}
