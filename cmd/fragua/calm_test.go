package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// TestALogDoesNotSteerTheTerminal writes each log in one piece, and byte by byte.
func TestALogDoesNotSteerTheTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b[1;31mred\x1b[0m\tand \x1b[38:5:9mpink\x1b[m\n": "\x1b[1;31mred\x1b[0m\tand \x1b[38:5:9mpink\x1b[m\n",
		"a\x1b]52;c;cm0gLXJm\x07b":                           "ab",
		"a\x1b]0;title\x1b\\b":                               "ab",
		"a\u009d0;title\u009cb\u009b2Jc":                     "abc",
		"a\x1bP1;2|dcs\x1b\\b\x1b_apc\x1b\\c\x1b^pm\x1b\\d":  "abcd",
		"a\x1b[2J\x1b[H\x1b[?1049h\x1b[5nb\x1bc\x1b(0c":      "abc",
		"a\x1b[>4;1mb\x1b[?4mc\x1b[1 md":                     "abcd", // these end in m, and are no colours
		"a\x1b[" + strings.Repeat("1;", 99) + "mb":           "ab",
		"a\x1b]0;no end\nb\x1b[31\nc\x1b\nd":                 "a\nb\nc\nd",
		"\a\b\x0b\x0c\x0e\x7fx\x00":                          "x",
		"1%\r2%\r\r\n3\r\n":                                  "1%\n2%\n3\n",
		"日本 \U0001F469":                                      "日本 \U0001F469",
		"a\x9b2Jb\xff":                                       "a\uFFFD2Jb\uFFFD",
		"\x1b[3\x1b[31mx":                                    "\x1b[31mx",
		"\x1béx":                                             "x",
	} {
		for size := range 4 {
			var out bytes.Buffer
			c := &calm{w: &out}
			for rest := []byte(in); len(rest) > 0; {
				n := len(rest)
				if size > 0 {
					n = min(size, n)
				}
				if got, err := c.Write(rest[:n]); got != n || err != nil {
					t.Fatal(got, err)
				}
				rest = rest[n:]
			}
			if out.String() != want {
				t.Errorf("%q by %d: %q, want %q", in, size, out.String(), want)
			}
		}
	}
}

// TestALineOfALogStaysItsOwn prints on a terminal that cannot be drawn on.
func TestALineOfALogStaysItsOwn(t *testing.T) {
	for calm, want := range map[bool]string{true: "j/s | 1%\nj/s | b: FAILED\n", false: "j/s | 1%\rb: \x1b[2JFAILED\n"} {
		var out bytes.Buffer
		r := &follower{plain: true, calm: calm, out: &out, began: time.Now()}
		r.each("j/s")([]byte("1%\rb: \x1b[2JFAILED"))
		if out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	}
}
