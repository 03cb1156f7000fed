package mask_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"fragua.dev/fragua/internal/mask"
)

func masked(set *mask.Set, parts ...string) string {
	m := mask.NewMasker(set)
	var out []byte
	for _, p := range parts {
		out = m.Mask(out, []byte(p))
	}
	return string(m.Flush(out))
}

func TestSecretsAreHidden(t *testing.T) {
	const secret = "s3cr3t/+value=42"
	set := mask.New([]string{secret, "abc", "-----BEGIN KEY-----\nline-of-the-key\n-----END KEY-----\n"})
	for name, text := range map[string]string{
		"plain":  secret,
		"base64": base64.StdEncoding.EncodeToString([]byte("user:" + secret + ":x")),
		"url64":  base64.URLEncoding.EncodeToString([]byte("u" + secret)),
		"hex":    hex.EncodeToString([]byte(secret)),
		"query":  url.QueryEscape(secret),
		"line":   "line-of-the-key",
	} {
		got := masked(set, "before ", text, " after")
		if !strings.Contains(got, mask.Stars) || strings.Contains(got, text) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := masked(set, "abc is too short to hide"); got != "abc is too short to hide" {
		t.Errorf("%q", got)
	}
	if mask.New([]string{"abc"}) != nil {
		t.Error("a set of nothing is not nil")
	}
}

func TestBordersDoNotMatter(t *testing.T) {
	set := mask.New([]string{"hunter22", "hunter22-longer"})
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOf(rapid.SampledFrom([]string{"hunter22", "hunter22-longer", "hunter", "x", "\n", " ", "22"})).Draw(t, "words")
		whole := strings.Join(words, "")
		want := masked(set, whole)
		var parts []string
		for rest := whole; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			parts = append(parts, rest[:n])
			rest = rest[n:]
		}
		if got := masked(set, parts...); got != want {
			t.Fatalf("%q in pieces is %q, at once %q", whole, got, want)
		}
		if strings.Contains(want, "hunter22") {
			t.Fatalf("%q shows a secret", want)
		}
	})
}

func BenchmarkMask(b *testing.B) {
	text := bytes.Repeat([]byte("a line of a log that holds no secret at all, as most do\n"), 1000)
	m := mask.NewMasker(mask.New([]string{"hunter22", "another-secret", "third/secret"}))
	b.SetBytes(int64(len(text)))
	var out []byte
	for b.Loop() {
		out = m.Mask(out[:0], text)
	}
}
