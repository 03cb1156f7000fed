package httpapi

import (
	"strconv"
	"strings"
)

// words makes huma's message about an input into one that says what is wanted.
// What it does not know it leaves.
func words(message string) string {
	for _, s := range sentences {
		if rest, ok := strings.CutPrefix(message, s.begins); ok {
			return s.says(rest)
		}
	}
	return message
}

// sentences are huma's, by their beginnings: a longer one stands before what it
// begins with.
var sentences = []struct {
	begins string
	says   func(rest string) string
}{
	{"expected number >= ", amount("want at least ", "")},
	{"expected number > ", amount("want more than ", "")},
	{"expected number <= ", amount("want at most ", "")},
	{"expected number < ", amount("want less than ", "")},
	{"expected number to be a multiple of ", amount("want a multiple of ", "")},
	{"expected length >= ", amount("want at least ", " characters")},
	{"expected length <= ", amount("want at most ", " characters")},
	{"expected array length >= ", amount("want ", " or more items")},
	{"expected array length <= ", amount("want ", " or fewer items")},
	{"expected object with at least ", func(s string) string { return "want " + strings.TrimSuffix(s, " properties") + " or more entries" }},
	{"expected object with at most ", func(s string) string { return "want " + strings.TrimSuffix(s, " properties") + " or fewer entries" }},
	{"expected array items to be unique", text("the same stands twice")},
	{"expected value to be one of ", func(s string) string { return "want one of " + strings.Trim(s, `"`) }},
	{"expected string to match pattern ", func(s string) string {
		if say, ok := patterns[s]; ok {
			return say
		}
		return "want a text of the form " + s
	}},
	{"expected string to be RFC 3339 date-time", text("want a time such as 2026-01-31T12:00:00Z")},
	{"invalid date/time", text("want a time such as 2026-01-31T12:00:00Z")},
	{"expected string to be base64 encoded", text("want base64")},
	{"required ", func(string) string { return "is missing" }},
	{"unexpected property", text("there is no such field here")},
	{"expected boolean", text("want true or false")},
	{"expected integer", text("want a whole number")},
	{"expected number", text("want a number")},
	{"expected string", text("want a text")},
	{"expected array", text("want a list")},
	{"expected object", text("want an object")},
	{"invalid integer", text("want a whole number")},
	{"invalid float", text("want a number")},
	{"invalid boolean", text("want true or false")},
}

func text(s string) func(string) string { return func(string) string { return s } }

func amount(before, after string) func(string) string {
	return func(n string) string {
		if f, err := strconv.ParseFloat(n, 64); err == nil {
			n = strconv.FormatFloat(f, 'f', -1, 64)
		}
		return before + n + after
	}
}

// patterns says in words what the patterns of this API allow.
var patterns = map[string]string{
	`^[A-Za-z0-9][A-Za-z0-9._-]*$`: "want 1 to 128 letters, digits, '.', '_' or '-', beginning with a letter or digit",
	`^[0-9a-f]{32}$`:               "want 32 hexadecimal digits",
	`^[a-z]*$`:                     "want small letters",
}
