package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

const (
	tailLines = 30  // that are kept of a step
	tailShown = 4   // of a step that runs
	lineKept  = 400 // bytes of a line
)

// tail keeps the last lines of a log.
type tail struct {
	mu    sync.Mutex
	lines []string
}

// read takes lines until r ends; each is called with every one of them.
func (t *tail) read(r io.Reader, each func([]byte)) {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			line = bytes.TrimRight(line, "\r\n")
			if each != nil {
				each(line)
			}
			t.keep(line)
		}
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
	}
}

func (t *tail) keep(line []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == tailLines {
		t.lines = append(t.lines[:0], t.lines[1:]...)
	}
	t.lines = append(t.lines, printable(string(line[:min(len(line), lineKept)])))
}

func (t *tail) last(n int) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.lines[max(0, len(t.lines)-n):]...)
}

// screen redraws a part of a terminal.
type screen struct {
	f     *os.File
	plain bool // no colours
	drawn int  // lines on the screen
	last  string
}

func newScreen(f *os.File, plain bool) *screen { return &screen{f: f, plain: plain} }

// draw puts lines in the place of those before.
func (s *screen) draw(lines []string) {
	width, height, err := term.GetSize(int(s.f.Fd()))
	if err != nil || width < 20 {
		width, height = 80, 24
	}
	if len(lines) > height-1 {
		lines = lines[len(lines)-(height-1):]
	}
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(cut(l, width-1))
		b.WriteString("\x1b[K\n")
	}
	text := b.String()
	if text == s.last {
		return
	}
	s.last = text
	if s.drawn > 0 {
		text = fmt.Sprintf("\x1b[%dA\r%s\x1b[J", s.drawn, text)
	}
	s.drawn = len(lines)
	io.WriteString(s.f, text)
}

// cut shortens a line to a width, escape sequences not counted.
func cut(s string, width int) string {
	n, escape := 0, false
	for i, r := range s {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		default:
			if n++; n > width {
				return s[:i] + "\x1b[0m"
			}
		}
	}
	return s
}

var (
	marks  = map[string]string{"SUCCEEDED": "✓", "FAILED": "✗", "CANCELLED": "–", "TERMINATED": "!", "RUNNING": "●", "SCHEDULED": "○", "PENDING": "·", "COMPLETED": "✓", "STARTED": "●", "SKIPPED": "–"}
	colors = map[string]string{"SUCCEEDED": "32", "COMPLETED": "32", "FAILED": "31", "TERMINATED": "35", "CANCELLED": "33", "RUNNING": "36", "STARTED": "36", "SKIPPED": "90", "PENDING": "90", "SCHEDULED": "90"}
)

func (r *follower) paint(state, text string) string {
	if r.screen == nil || r.screen.plain {
		return text
	}
	return "\x1b[" + colors[state] + "m" + text + "\x1b[0m"
}

func round(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// tree shows the run's jobs: those that succeeded in one line, those that failed
// with all that is known.
func (r *follower) tree(final bool) []string {
	lines := []string{r.name + "  " + round(time.Since(r.began))}
	for _, id := range r.order {
		f := r.jobs[id]
		j := f.view
		took := ""
		if j.Started != nil {
			end := time.Now()
			if j.Finished != nil {
				end = *j.Finished
			}
			took = "  " + round(end.Sub(*j.Started))
		}
		if j.Attempts > 1 {
			took += fmt.Sprintf("  (attempt %d)", j.Attempts)
		}
		lines = append(lines, "  "+r.paint(j.State, marks[j.State]+" "+j.Name)+took+why(j))
		if j.State != "RUNNING" && j.State != "FAILED" && j.State != "TERMINATED" {
			continue
		}
		for _, s := range j.Steps {
			if s.State == "PENDING" || s.State == "SKIPPED" {
				continue
			}
			took := ""
			if s.State != "STARTED" {
				took = "  " + round(time.Duration(s.Duration)*time.Millisecond)
			}
			lines = append(lines, "      "+r.paint(s.State, marks[s.State]+" "+s.Name)+took)
			show := 0
			switch {
			case s.State == "STARTED":
				show = tailShown
			case s.State == "FAILED" && (final || j.State != "RUNNING"):
				show = tailLines
			}
			if t := f.logs[s.Exec]; t != nil && show > 0 {
				for _, l := range t.last(show) {
					lines = append(lines, "        "+l)
				}
			}
		}
	}
	return lines
}

// summary ends what is shown: how the run went, and how to look deeper.
func (r *follower) summary(state string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	count := map[string]int{}
	var deeper []string
	for _, id := range r.order {
		j := r.jobs[id].view
		count[j.State]++
		if j.State == "FAILED" || j.State == "TERMINATED" {
			deeper = append(deeper, "  fragua job logs "+j.ID+" "+r.hint)
		}
	}
	var parts []string
	for _, s := range []string{"SUCCEEDED", "FAILED", "TERMINATED", "CANCELLED"} {
		if count[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[s], strings.ToLower(s)))
		}
	}
	if r.screen != nil {
		r.screen.draw(r.tree(true))
	}
	fmt.Fprintf(r.out, "%s %s %s in %s: %s\n", r.paint(state, marks[state]), r.name, strings.ToLower(state), round(time.Since(r.began)), strings.Join(parts, ", "))
	if len(deeper) > 5 {
		deeper = append(deeper[:5], "  …")
	}
	if deeper == nil {
		deeper = []string{"  fragua pipeline status " + r.id + " " + r.hint}
	}
	fmt.Fprintf(r.out, "look deeper:\n%s\n", strings.Join(deeper, "\n"))
}
