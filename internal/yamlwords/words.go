// Package yamlwords splits YAML into words as the standard does where the library does
// not: in lists in brackets that stand within braces.
package yamlwords

import (
	"unicode/utf8"

	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"
)

// Split returns the words of src. In {scopes: [job:read]} the library's lexer (1.19) takes
// job for a key; but a colon parts a plain key from its value only before a space (YAML
// 1.2.2, 7.3.3).
func Split(src string) token.Tokens {
	words := lexer.Tokenize(src)
	out := words[:0:0]
	var open []token.Type // brackets and braces, the innermost last
	for i := 0; i < len(words); i++ {
		t := words[i]
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			open = append(open, t.Type)
		case token.MappingEndType, token.SequenceEndType:
			open = open[:max(0, len(open)-1)]
		}
		if len(open) > 0 && open[len(open)-1] == token.SequenceStartType {
			for i+2 < len(words) && oneWord(t, words[i+1], words[i+2]) {
				join(t, words[i+2])
				i += 2
			}
		}
		out = append(out, t)
	}
	return out
}

// oneWord says whether a colon stands between two plain words without any space.
func oneWord(a, colon, b *token.Token) bool {
	return plain(a) && plain(b) && colon.Type == token.MappingValueType &&
		adjoin(a, colon, utf8.RuneCountInString(a.Value)) && adjoin(colon, b, 1)
}

func plain(t *token.Token) bool {
	return t.CharacterType == token.CharacterTypeMiscellaneous && t.Type != token.SingleQuoteType && t.Type != token.DoubleQuoteType
}

// adjoin says whether b begins where a ends, which is so many characters wide.
func adjoin(a, b *token.Token, wide int) bool {
	return a.Position.Line == b.Position.Line && a.Position.Column+wide == b.Position.Column
}

func join(a, b *token.Token) {
	a.Type, a.Value, a.Origin, a.Next = token.StringType, a.Value+":"+b.Value, a.Origin+":"+b.Origin, b.Next
	if b.Next != nil {
		b.Next.Prev = a
	}
}
