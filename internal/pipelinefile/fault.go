package pipelinefile

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxFaults is how many faults of one file are told.
const maxFaults = 100

// A Fault is one thing that is wrong with a file.
type Fault struct {
	Line    int    `json:"line"`   // from 1
	Column  int    `json:"column"` // from 1, in characters
	Path    string `json:"path,omitempty"`
	Message string `json:"message"` // what is wrong, and what would be right
}

// An Error is everything that is wrong with a file.
type Error struct {
	File   string
	Faults []Fault // by their place
	src    []byte
}

// Error writes each fault as compilers do: where it is, what it is, and the line
// with a mark below it.
func (e *Error) Error() string {
	var b strings.Builder
	lines := bytes.Split(e.src, []byte("\n"))
	for i, f := range e.Faults {
		if i == maxFaults {
			fmt.Fprintf(&b, "%s: and %d more\n", e.File, len(e.Faults)-maxFaults)
			break
		}
		fmt.Fprintf(&b, "%s:%d:%d: ", e.File, f.Line, f.Column)
		if f.Path != "" {
			b.WriteString(f.Path + ": ")
		}
		b.WriteString(f.Message + "\n")
		if f.Line >= 1 && f.Line <= len(lines) {
			excerpt(&b, lines[f.Line-1], f)
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// excerpt shows the line of a fault, or the part around it.
func excerpt(b *strings.Builder, line []byte, f Fault) {
	const width = 96
	text := []rune(strings.ToValidUTF8(string(line[:min(len(line), 64<<10)]), string(utf8.RuneError)))
	if len(strings.TrimSpace(string(text))) == 0 {
		return
	}
	for i, r := range text {
		if !unicode.IsPrint(r) {
			text[i] = ' ' // a tab too: the mark below must stand right
		}
	}
	col := min(max(f.Column-1, 0), len(text))
	from := 0
	if len(text) > width {
		from = min(max(col-width/2, 0), len(text)-width)
		text = text[from : from+width]
	}
	number := fmt.Sprintf("%5d", f.Line)
	fmt.Fprintf(b, "%s | %s\n", number, strings.TrimRight(string(text), " "))
	fmt.Fprintf(b, "%s | %s^\n", strings.Repeat(" ", len(number)), strings.Repeat(" ", col-from))
}

func (e *Error) sort() {
	slices.SortStableFunc(e.Faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Path, b.Path))
	})
	e.Faults = slices.Compact(e.Faults)
}
