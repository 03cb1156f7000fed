//go:build ignore

// Picture draws what a terminal showed: text with colours (ANSI) on standard input,
// SVG on standard output.
package main

import (
	"bufio"
	"fmt"
	"html"
	"os"
	"regexp"
	"strconv"
	"strings"
)

const (
	cellWidth  = 8.4 // of a monospaced letter of 14 pixels
	lineHeight = 20
	margin     = 16
	bar        = 28 // of the window
)

var colors = map[int]string{31: "#f47067", 32: "#6bc46d", 33: "#daaa3f", 35: "#dcbdfb", 36: "#56d4dd", 90: "#768390"}

var style = regexp.MustCompile(`\x1b\[([0-9;]*)m`)

// A span is text in one colour; an empty one is the terminal's own.
type span struct{ color, text string }

func main() {
	var lines [][]span
	columns, color := 0, ""
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		line := in.Text()
		columns = max(columns, len([]rune(style.ReplaceAllString(line, ""))))
		var spans []span
		for line != "" {
			at := style.FindStringSubmatchIndex(line)
			if at == nil {
				spans = append(spans, span{color, line})
				break
			}
			if at[0] > 0 {
				spans = append(spans, span{color, line[:at[0]]})
			}
			for code := range strings.SplitSeq(line[at[2]:at[3]], ";") {
				n, _ := strconv.Atoi(code) // none is 0
				color = colors[n]
			}
			line = line[at[1]:]
		}
		lines = append(lines, spans)
	}
	if err := in.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
	for n := len(lines) - 1; n >= 0 && (len(lines[n]) == 0 || strings.TrimSpace(lines[n][0].text) == "$"); n-- {
		lines = lines[:n]
	}
	width, height := float64(columns)*cellWidth+2*margin, len(lines)*lineHeight+bar+2*margin
	fmt.Printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %d" width="%.0f" height="%d" role="img" aria-label="fragua run examples/go in a terminal">
<rect width="100%%" height="100%%" rx="8" fill="#22272e"/>
<circle cx="18" cy="16" r="5" fill="#f47067"/><circle cx="36" cy="16" r="5" fill="#daaa3f"/><circle cx="54" cy="16" r="5" fill="#6bc46d"/>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14" fill="#adbac7" xml:space="preserve" style="white-space: pre">
`, width, height, width, height)
	for i, spans := range lines {
		fmt.Printf(`<text x="%d" y="%d">`, margin, bar+margin+i*lineHeight+lineHeight/2)
		for _, s := range spans {
			if s.color == "" {
				fmt.Print(html.EscapeString(s.text))
			} else {
				fmt.Printf(`<tspan fill="%s">%s</tspan>`, s.color, html.EscapeString(s.text))
			}
		}
		fmt.Println("</text>")
	}
	fmt.Println("</g>\n</svg>")
}
