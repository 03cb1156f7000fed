package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// needle is one form of a secret.
type needle struct {
	text    string
	folds   bool // line breaks may stand anywhere in it: base64 and xxd wrap what they print
	escapes bool // the digits of its percent escapes may be small or capital
}

// formsOf returns the forms in which a secret is looked for.
func formsOf(secret string) []needle {
	var out []needle
	add := func(s string, folds bool) {
		if len(s) >= MinLen {
			out = append(out, needle{text: s, folds: folds})
		}
	}
	values := []string{secret}
	if trimmed := strings.TrimSpace(secret); trimmed != secret {
		values = append(values, trimmed)
	}
	for _, v := range values {
		if len(v) < MinLen {
			continue
		}
		add(v, false)
		if strings.Contains(v, "\n") {
			add(strings.ReplaceAll(strings.ReplaceAll(v, "\r\n", "\n"), "\n", "\r\n"), false)
		}
		for _, quoted := range quotes(v) {
			add(quoted, false)
		}
		for _, escaped := range urls(v) {
			if len(escaped) >= MinLen {
				out = append(out, needle{text: escaped, escapes: strings.Contains(escaped, "%")})
			}
		}
		inHex := hex.EncodeToString([]byte(v))
		add(inHex, true)
		add(strings.ToUpper(inHex), true)
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			for shift := range 3 {
				add(inner(e, v, shift), true)
			}
		}
	}
	lines := strings.FieldsFunc(secret, func(c rune) bool { return c == '\n' || c == '\r' })
	if len(lines) > 1 {
		for _, line := range lines { // a tool may print the lines of a key one by one
			add(strings.TrimSpace(line), false)
		}
	}
	return out
}

// inner returns the part of s's base64 that is the same wherever s begins shift
// bytes into a group of three, whatever stands around it.
func inner(e *base64.Encoding, s string, shift int) string {
	enc := e.EncodeToString([]byte(strings.Repeat("x", shift) + s))
	return enc[(shift*8+5)/6 : (shift+len(s))*8/6]
}

// quotes returns s as it stands in the quotes of other languages.
func quotes(s string) []string {
	plain := strings.NewReplacer("\\", `\\`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(s)
	out := []string{
		plain, strings.ReplaceAll(plain, "'", `\'`), // Python's repr, in either quotes
		strings.ReplaceAll(s, "'", `'\''`), // a shell's set -x
		html.EscapeString(s),
		inside(strconv.Quote(s)), inside(strconv.QuoteToASCII(s)),
	}
	for _, single := range []string{"'", "&#39;", "&#x27;", "&apos;"} { // XML and HTML, in text and in either quotes
		for _, double := range []string{`"`, "&quot;"} {
			out = append(out, strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", single, `"`, double).Replace(s))
		}
	}
	for _, escape := range []bool{false, true} { // JSON, with and without the care for HTML
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(escape)
		if enc.Encode(s) == nil {
			text := inside(strings.TrimSuffix(b.String(), "\n"))
			for _, t := range []string{text, strings.ReplaceAll(text, "/", `\/`)} { // as PHP does
				out = append(out, t, ascii(t))
			}
		}
	}
	return out
}

func inside(quoted string) string { return quoted[1 : len(quoted)-1] }

// ascii returns what stands in a JSON string as it does where that is to be ASCII,
// which is what Python's json writes.
func ascii(s string) string {
	var b strings.Builder
	for _, c := range s {
		switch {
		case c < utf8.RuneSelf:
			b.WriteRune(c)
		case c > 0xffff:
			high, low := utf16.EncodeRune(c)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, c)
		}
	}
	return b.String()
}

// urls returns s as it stands in URLs: tools differ in what they leave as it is.
func urls(s string) []string {
	const component = "!'()*" // JavaScript's encodeURIComponent
	return []string{
		url.QueryEscape(s), url.PathEscape(s), percent(s, ""), percent(s, component), percent(s, component+";,/?:@&=+$#"), // its encodeURI
		percent(s, "/"), // Python's quote
	}
}

// percent escapes all of s but letters, digits, what RFC 3986 calls unreserved, and keep.
func percent(s, keep string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~"+keep, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// inEscape says whether s[i] is a digit of a percent escape.
func inEscape(s string, i int) bool {
	return i >= 1 && s[i-1] == '%' || i >= 2 && s[i-2] == '%'
}
