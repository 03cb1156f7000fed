package main

import (
	"io"
	"os"
	"slices"
	"unicode/utf8"

	"golang.org/x/term"
)

// What calm reads at the moment.
const (
	inText     = iota
	inEscape   // after ESC
	inSequence // after ESC [
	inString   // a title, a clipboard: text for the terminal, up to its end
)

// mostColor bounds what is remembered of a sequence: those of colours are short.
const mostColor = 64

// calm writes on what a terminal may be shown of a log: text and its colours, but nothing
// else that steers a terminal. What it is given may be cut anywhere.
type calm struct {
	w     io.Writer
	plain bool   // no colours either
	again string // begins a line that would be written over another

	rest  []byte // of a character that has not come to its end
	state int    // where in the text it is
	color []byte // of a sequence: what may stand in that of a colour,
	odd   bool   // and whether there was more
	back  bool   // a return has been read, and nothing after it
}

// onTerminal says whether people look at what is written to w.
func onTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// calmed returns what logs are written to: a file gets them as they are.
func calmed(w io.Writer) io.Writer {
	if onTerminal(w) {
		return &calm{w: w}
	}
	return w
}

func (c *calm) Write(p []byte) (int, error) {
	in := slices.Concat(c.rest, p)
	var out []byte
	for len(in) > 0 && utf8.FullRune(in) {
		r, size := utf8.DecodeRune(in)
		in, out = in[size:], c.read(out, r)
	}
	c.rest = in
	if _, err := c.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// read adds to out what is to be shown once r is read.
func (c *calm) read(out []byte, r rune) []byte {
	if r >= 0x80 && r < 0xa0 { // ESC and a letter in one
		c.state, r = inEscape, r-0x40
	}
	switch {
	case r == '\x1b':
		c.state = inEscape
	case r == '\n' || r == '\x18' || r == '\x1a': // these end what has no end
		c.state = inText
		return c.text(out, r)
	case c.state == inText:
		return c.text(out, r)
	case r < ' ':
		if c.state == inString && r == '\a' {
			c.state = inText
		}
	case c.state == inEscape:
		c.escape(r)
	case c.state == inSequence:
		return c.sequence(out, r)
	}
	return out
}

// text is read outside sequences. A return goes to a new line, or it could hide what
// stands there.
func (c *calm) text(out []byte, r rune) []byte {
	if c.back && r != '\r' {
		if c.back = false; r != '\n' {
			out = append(append(out, '\n'), c.again...)
		}
	}
	switch {
	case r == '\r':
		c.back = true
	case r >= ' ' && r != 0x7f || r == '\n' || r == '\t':
		out = utf8.AppendRune(out, r)
	}
	return out
}

// escape reads what comes after ESC.
func (c *calm) escape(r rune) {
	switch {
	case r == '[':
		c.state, c.color, c.odd = inSequence, c.color[:0], false
	case r == ']' || r == 'P' || r == 'X' || r == '^' || r == '_':
		c.state = inString
	case r >= '0':
		c.state = inText
	}
}

// sequence reads what comes after ESC [, up to the letter that says what it does.
func (c *calm) sequence(out []byte, r rune) []byte {
	switch {
	case (r >= '0' && r <= '9' || r == ';' || r == ':') && len(c.color) < mostColor:
		c.color = append(c.color, byte(r))
	case r < '@':
		c.odd = true
	default:
		if c.state = inText; r == 'm' && !c.odd && !c.plain {
			out = append(append(append(out, "\x1b["...), c.color...), 'm')
		}
	}
	return out
}
