package mask

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
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
	escapes bool // the hexadecimal digits of its escapes may be small or capital
}

// formsOf returns the forms in which a secret is looked for.
func formsOf(secret string) []needle {
	var out []needle
	add := func(s string, folds bool) {
		if len(s) >= MinLen {
			out = append(out, needle{text: s, folds: folds})
		}
	}
	escaped := func(s string, forms []string) {
		for _, f := range forms {
			if len(f) >= MinLen && f != s {
				out = append(out, needle{text: f, escapes: strings.Contains(f, "%") || strings.Contains(f, `\u`) || strings.Contains(f, "&#x")})
			}
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
		escaped(v, quotes(v))
		escaped(v, urls(v))
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
		inside(strconv.Quote(s)), inside(strconv.QuoteToASCII(s)),
	}
	return append(append(out, jsons(s)...), xmls(s)...)
}

func inside(quoted string) string { return quoted[1 : len(quoted)-1] }

// escape replaces the characters of s that one of the rules has something for; the
// first one counts.
func escape(s string, rules ...rule) string {
	var b strings.Builder
next:
	for _, c := range s {
		for _, r := range rules {
			if to := r(c); to != "" {
				b.WriteString(to)
				continue next
			}
		}
		b.WriteRune(c)
	}
	return b.String()
}

// A rule says what stands in the place of a character; nothing: the character.
type rule func(c rune) string

// these lets as say how each of chars is written.
func these(chars string, as func(rune) string) rule {
	return func(c rune) string {
		if strings.ContainsRune(chars, c) {
			return as(c)
		}
		return ""
	}
}

// foreign lets as say how each character that is not ASCII is written.
func foreign(as func(rune) string) rule {
	return func(c rune) string {
		if c < utf8.RuneSelf {
			return ""
		}
		return as(c)
	}
}

// named has a name for each of some characters.
func named(names map[rune]string) rule { return func(c rune) string { return names[c] } }

// jsonShort are the escapes of JSON that every writer has.
var jsonShort = named(map[rune]string{'"': `\"`, '\\': `\\`, '\n': `\n`, '\r': `\r`, '\t': `\t`, '\b': `\b`, '\f': `\f`})

// jsons returns s as it stands in strings of JSON. Writers differ in which characters
// they write as \uXXXX, most of them out of care for HTML.
func jsons(s string) (out []string) {
	control := func(c rune) string {
		if c < ' ' || c == utf8.RuneError || c == '\u2028' || c == '\u2029' {
			return unicode16(c)
		}
		return ""
	}
	for _, chars := range []string{
		"", "<>&", // without and with that care: Go, Python, Jackson
		"<>&'", "<>&'\"", // PHP and Newtonsoft, with more of it
		"<>&'=",          // Gson
		"<>&'\"+`\u007f", // System.Text.Json
	} {
		text := escape(s, these(chars, unicode16), jsonShort, control)
		ascii := escape(text, foreign(unicode16))
		out = append(out, text, ascii, strings.ReplaceAll(text, "/", `\/`), strings.ReplaceAll(ascii, "/", `\/`)) // as PHP does
	}
	return out
}

// unicode16 returns c as JSON writes a character by its number.
func unicode16(c rune) string {
	if high, low := utf16.EncodeRune(c); high != utf8.RuneError {
		return fmt.Sprintf(`\u%04x\u%04x`, high, low)
	}
	return fmt.Sprintf(`\u%04x`, c)
}

// xmls returns s as it stands in XML and HTML: in text and in either quotes, what is
// no ASCII as it is or by its number, and what is special by name or by number.
func xmls(s string) (out []string) {
	decimal := func(c rune) string { return fmt.Sprintf("&#%d;", c) }
	hexadecimal := func(c rune) string { return fmt.Sprintf("&#x%X;", c) }
	for _, number := range []func(rune) string{func(rune) string { return "" }, decimal, hexadecimal} {
		far := foreign(number)
		for _, single := range []string{"'", "&#39;", "&#x27;", "&apos;"} {
			for _, double := range []string{`"`, "&quot;", "&#34;"} {
				out = append(out, escape(s, named(map[rune]string{'&': "&amp;", '<': "&lt;", '>': "&gt;", '\'': single, '"': double}), far))
			}
		}
		out = append(out, escape(s, far),
			escape(s, named(map[rune]string{'&': "&amp;", '<': "&lt;", '>': "&gt;", '"': "&quot;"}), these("'+`", hexadecimal), far)) // .NET's HtmlEncoder
		for _, special := range []func(rune) string{decimal, hexadecimal} {
			out = append(out, escape(s, these(`&<>"'`, special), far), escape(s, these(`&<>"'+=`, special), far))
		}
	}
	return out
}

// urls returns s as it stands in URLs: tools differ in what they leave as it is.
func urls(s string) []string {
	const (
		unreserved = "-._~"                    // of RFC 3986
		component  = unreserved + "!'()*"      // JavaScript's encodeURIComponent
		whole      = component + ";,/?:@&=+$#" // its encodeURI
	)
	out := []string{
		url.QueryEscape(s), url.PathEscape(s),
		strings.TrimPrefix(url.UserPassword("", s).String(), ":"), // before the @ of an address
		percent(s, unreserved), percent(s, unreserved+"/"), // Python's quote
		percent(s, component), percent(s, whole),
	}
	for _, keep := range []string{"-._", "-._*", "-._!*()"} { // forms, as PHP, browsers and Java, and .NET write them
		out = append(out, strings.ReplaceAll(percent(s, keep), "%20", "+"))
	}
	return out
}

// percent escapes all of s but letters, digits and keep.
func percent(s, keep string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(keep, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// inEscape says whether s[i] is a hexadecimal digit of an escape: %2F, \u002F, &#x2F;.
func inEscape(s string, i int) bool {
	const longest = len("&#x10FFF")
	before := s[max(0, i-longest):i]
	before = before[max(0, strings.LastIndexAny(before, `%\&`)):]
	switch {
	case strings.HasPrefix(before, "%"):
		return len(before) <= 2
	case strings.HasPrefix(before, `\u`):
		return len(before) <= 5
	default:
		return strings.HasPrefix(before, "&#x") && !strings.Contains(before, ";")
	}
}
