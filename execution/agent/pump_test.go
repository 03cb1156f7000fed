package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"fragua.dev/fragua/contract/agentapi"
	"fragua.dev/fragua/contract/logframe"
	"fragua.dev/fragua/internal/mask"
)

// writes is a step that prints these pieces, one at each read.
type writes [][]byte

func (w *writes) Read(p []byte) (int, error) {
	if len(*w) == 0 {
		return 0, io.EOF
	}
	n := copy(p, (*w)[0])
	if (*w)[0] = (*w)[0][n:]; len((*w)[0]) == 0 {
		*w = (*w)[1:]
	}
	return n, nil
}

// pumped returns what a pump makes of a step's output.
func pumped(t interface {
	Fatalf(string, ...any)
	Fatal(...any)
}, dir string, r io.Reader, secrets ...string) ([]logframe.Frame, agentapi.LogSize) {
	s := newSpool(filepath.Join(dir, "log"))
	defer s.close()
	size := pump(r, s, logframe.Stdout, mask.NewMasker(mask.New(secrets)))
	s.finish()
	b, err := fetch(s, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return framesOf(t, b), size
}

// text joins what is the step's own, and fails unless each frame is whole lines.
func textOf(t interface{ Fatalf(string, ...any) }, frames []logframe.Frame) string {
	var b strings.Builder
	for i, f := range frames {
		if len(f.Text) == 0 || f.Text[len(f.Text)-1] != '\n' || len(f.Text) > logframe.MaxText {
			t.Fatalf("frame %d holds %d bytes, which are no whole lines", i, len(f.Text))
		}
		if f.Stream == logframe.Stdout {
			b.Write(f.Text)
		}
	}
	return b.String()
}

// TestHoweverItIsPrintedTheLinesAreTheSame prints any bytes in any pieces.
func TestHoweverItIsPrintedTheLinesAreTheSame(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		var all []byte
		var pieces writes
		for range rapid.IntRange(0, 15).Draw(t, "writes") {
			piece := rapid.SliceOfN(rapid.SampledFrom([]byte("\n\n\r\x00\xffab\xc3\xa9 ")), 1, 30).Draw(t, "piece")
			if rapid.IntRange(0, 3).Draw(t, "long") == 0 {
				piece = bytes.Repeat(piece, rapid.IntRange(1, 3000).Draw(t, "times"))
			}
			all, pieces = append(all, piece...), append(pieces, piece)
		}
		frames, size := pumped(t, dir, &pieces)
		want := string(all)
		if want != "" && !strings.HasSuffix(want, "\n") {
			want += "\n"
		}
		if got := textOf(t, frames); got != want {
			t.Fatalf("kept %d bytes, want %d", len(got), len(want))
		}
		if size.Bytes != int64(len(want)) || size.Lines != int64(strings.Count(want, "\n")) {
			t.Fatalf("counted %+v", size)
		}
	})
}

func TestALineThatIsTooLongIsCutWithAMark(t *testing.T) {
	for _, over := range []int{-1, 0, 1, 5000, 3 << 20} {
		for _, end := range []string{"\n", ""} {
			line := strings.Repeat("x", agentapi.MaxLine+over)
			out := "before\n" + line + end
			if end != "" {
				out += "after\n"
			}
			frames, size := pumped(t, t.TempDir(), strings.NewReader(out))
			want := "before\n" + line[:min(len(line), agentapi.MaxLine)] + "\n"
			if end != "" {
				want += "after\n"
			}
			if got := textOf(t, frames); got != want || size.Bytes != int64(len(want)) {
				t.Errorf("%d bytes too many, end %q: kept %d bytes, want %d; counted %+v", over, end, len(got), len(want), size)
			}
			var marks []string
			for i, f := range frames {
				if f.Stream == logframe.Mark {
					marks = append(marks, string(f.Text))
					if prev := frames[i-1].Text; len(prev) != agentapi.MaxLine+1 {
						t.Errorf("the mark follows %d bytes", len(prev))
					}
				}
			}
			switch {
			case over <= 0 && marks != nil:
				t.Errorf("nothing was cut, and %q was said", marks)
			case over > 0 && (len(marks) != 1 || marks[0] != fmt.Sprintf("… %d bytes of this line are cut\n", over)):
				t.Errorf("%d bytes were cut, and %q was said", over, marks)
			}
		}
	}
}

// TestSecretsAreMaskedHoweverTheyArePrinted cuts a secret in two at each place.
func TestSecretsAreMaskedHoweverTheyArePrinted(t *testing.T) {
	const secret = "correct-horse-battery"
	dir := t.TempDir()
	for i := range len(secret) + 1 {
		frames, _ := pumped(t, dir, &writes{[]byte("a " + secret[:i]), []byte(secret[i:] + " b\nlast " + secret)}, secret)
		got := textOf(t, frames)
		if strings.Contains(got, secret) || strings.Contains(got, secret[5:]) || !strings.HasPrefix(got, "a ") || !strings.Contains(got, " b\nlast ") {
			t.Errorf("cut after %d: %q", i, got)
		}
	}
}

func TestTheBeginningOfASecretIsNoneAtTheEnd(t *testing.T) {
	frames, _ := pumped(t, t.TempDir(), strings.NewReader("a corr"), "correct-horse-battery")
	if got := textOf(t, frames); got != "a corr\n" {
		t.Errorf("kept %q", got)
	}
}

func TestOutputThatIsCutOffIsKeptSoFar(t *testing.T) {
	r := io.MultiReader(strings.NewReader("whole\npart"), iotest.ErrReader(errors.New("the pipe is closed")))
	frames, size := pumped(t, t.TempDir(), r)
	if got := textOf(t, frames); got != "whole\npart\n" || size.Lines != 2 {
		t.Errorf("kept %q", got)
	}
}
