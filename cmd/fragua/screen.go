package main

import (
	"fmt"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
	"golang.org/x/text/width"
)

// screen redraws a part of a terminal.
type screen struct {
	f     *os.File
	plain bool  // no colours
	drawn []int // how wide the lines on the screen are
	last  string
}

func newScreen(f *os.File, plain bool) *screen { return &screen{f: f, plain: plain} }

// size returns how many columns and lines there are.
func (s *screen) size() (columns, lines int) {
	columns, lines, err := term.GetSize(int(s.f.Fd()))
	if err != nil || columns < 1 || lines < 1 {
		return 80, 24
	}
	return columns, lines
}

// draw puts lines in the place of those before, each cut to the screen's width, and
// to twice that the last time, when nothing takes their place any more.
func (s *screen) draw(lines []string, last bool) {
	columns, _ := s.size()
	var b strings.Builder
	wide := make([]int, len(lines))
	for i, l := range lines {
		room := columns - 1
		if last {
			room = 2 * columns
		}
		l, wide[i] = cut(l, room)
		b.WriteString(l)
		b.WriteString("\x1b[K\n")
	}
	text := b.String()
	if text == s.last {
		return
	}
	s.last = text
	// Lines that were drawn on a wider screen take more than one now.
	rows := 0
	for _, w := range s.drawn {
		rows += max(1, (w+columns-1)/columns)
	}
	if rows > 0 { // written over, and the rest erased then: what is erased first flickers
		text = fmt.Sprintf("\x1b[%dA\r%s\x1b[J", rows, text)
	}
	s.drawn = wide
	fmt.Fprint(s.f, text)
}

// cut shortens a line to columns, escape sequences not counted, and says how many it
// takes.
func cut(s string, columns int) (string, int) {
	n, escape := 0, false
	for i, r := range s {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		default:
			w := cells(r)
			if n+w > columns {
				return s[:i] + "\x1b[0m", n
			}
			n += w
		}
	}
	return s, n
}

// cells says how many columns a character takes.
func cells(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
		return 2
	}
	return 1
}
