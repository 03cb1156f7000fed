package mask_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
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

const key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7\nline-of-the-key\n-----END KEY-----\n"

func fold(s string, width int) string {
	var b strings.Builder
	for len(s) > width {
		b.WriteString(s[:width] + "\n")
		s = s[width:]
	}
	return b.String() + s
}

func TestSecretsAreHidden(t *testing.T) {
	const secret = `s3cr3t/+va"l'ue=<42> é𝄞\`
	set := mask.New([]string{secret, "abc", key})
	quoted, err := json.Marshal(secret)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"plain":                secret,
		"base64":               base64.StdEncoding.EncodeToString([]byte(secret)),
		"base64, second place": base64.StdEncoding.EncodeToString([]byte("u" + secret)),
		"base64, third place":  base64.StdEncoding.EncodeToString([]byte("us" + secret + ":x")),
		"base64 for URLs":      base64.URLEncoding.EncodeToString([]byte("u" + secret)),
		"base64, folded":       fold(base64.StdEncoding.EncodeToString([]byte(key)), 76),
		"hex":                  hex.EncodeToString([]byte(secret)),
		"HEX":                  strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"hex, folded":          fold(hex.EncodeToString([]byte(secret)), 60),
		"query":                url.QueryEscape(secret),
		"query, small digits":  strings.NewReplacer("%2F", "%2f", "%2B", "%2b", "%3D", "%3d", "%C3%A9", "%c3%a9").Replace(url.QueryEscape(secret)),
		"query, mixed digits":  strings.NewReplacer("%2F", "%2f", "%C3%A9", "%C3%a9").Replace(url.QueryEscape(secret)),
		"path":                 url.PathEscape(secret),
		"Python's quote":       `s3cr3t/%2Bva%22l%27ue%3D%3C42%3E%20%C3%A9%F0%9D%84%9E%5C`,
		"Python's, of all":     `s3cr3t%2F%2Bva%22l%27ue%3D%3C42%3E%20%C3%A9%F0%9D%84%9E%5C`,
		"encodeURI":            `s3cr3t/+va%22l'ue=%3C42%3E%20%C3%A9%F0%9D%84%9E%5C`,
		"JSON":                 strings.Trim(string(quoted), `"`),
		"JSON for HTML, no":    `s3cr3t/+va\"l'ue=<42> é𝄞\\`,
		"JSON in ASCII":        `s3cr3t/+va\"l'ue=<42> \u00e9\ud834\udd1e\\`,
		"PHP's JSON":           `s3cr3t\/+va\"l'ue=<42> \u00e9\ud834\udd1e\\`,
		"repr":                 `s3cr3t/+va"l\'ue=<42> é𝄞\\`,
		"set -x":               `s3cr3t/+va"l'\''ue=<42> é𝄞\`,
		"XML":                  `s3cr3t/+va"l'ue=&lt;42&gt; é𝄞\`,
		"HTML":                 `s3cr3t/+va&#34;l&#39;ue=&lt;42&gt; é𝄞\`,
		"Python's html":        `s3cr3t/+va&quot;l&#x27;ue=&lt;42&gt; é𝄞\`,
		"attribute":            `s3cr3t/+va&quot;l'ue=&lt;42&gt; é𝄞\`,
		"Go":                   `s3cr3t/+va\"l'ue=<42> \u00e9\U0001d11e\\`,
		"a line of it":         "line-of-the-key",
		"lines of DOS":         strings.ReplaceAll(key, "\n", "\r\n"),
	} {
		got := masked(set, "before ", text, " after")
		// Of base64, the ends belong to what stands beside the secret, too.
		core := strings.TrimRight(text, "=")
		core = core[min(3, len(core)-1) : len(core)-2]
		if !strings.Contains(got, mask.Stars) || strings.Contains(got, core) || !strings.HasPrefix(got, "before ") || !strings.HasSuffix(got, " after") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestSecretsOfFourBytesAreHiddenEverywhere(t *testing.T) {
	set := mask.New([]string{"k7#Q"})
	for _, before := range []string{"", "u", "us"} {
		if got := masked(set, base64.StdEncoding.EncodeToString([]byte(before+"k7#Q"))); !strings.Contains(got, mask.Stars) {
			t.Errorf("base64 after %q: %q", before, got)
		}
	}
	if got := masked(set, "it is k7#Q."); got != "it is ***." {
		t.Errorf("%q", got)
	}
}

func TestShortSecretsAreNotHidden(t *testing.T) {
	if mask.New([]string{"abc", ""}) != nil {
		t.Error("a set of nothing is not nil")
	}
	set := mask.New([]string{"abc", "hunter22"})
	if got := masked(set, "abc is too short to hide"); got != "abc is too short to hide" {
		t.Errorf("%q", got)
	}
}

func TestEachLineOfASecretIsHidden(t *testing.T) {
	set := mask.New([]string{"user=a\rpw:4\r\n  k7#Q \nabc\n\nlonger than these"})
	for _, line := range []string{"user=a", "pw:4", "k7#Q", "longer than these"} {
		if got := masked(set, "it is "+line+"."); got != "it is ***." {
			t.Errorf("%q", got)
		}
	}
	if got := masked(set, "abc is too short to hide"); got != "abc is too short to hide" {
		t.Errorf("%q", got)
	}
}

func TestTheLongestSecretWins(t *testing.T) {
	set := mask.New([]string{"hunter22", "hunter22-and-more"})
	if got := masked(set, "hunter22-a", "nd-more hunter22-and"); got != "*** ***-and" {
		t.Errorf("%q", got)
	}
}

func TestNothingIsHeldThatCannotBeASecret(t *testing.T) {
	m := mask.NewMasker(mask.New([]string{"hunter22", key}))
	for _, line := range []string{"a line\n", "another one\n"} {
		if got := string(m.Mask(nil, []byte(line))); got != line {
			t.Errorf("of %q only %q was let through", line, got)
		}
	}
	if got := string(m.Mask(nil, []byte("it is hunt"))); got != "it is " {
		t.Errorf("%q", got)
	}
	if got := string(m.Flush(nil)); got != "hunt" {
		t.Errorf("%q", got)
	}
}

func TestBytesThatAreNoTextPass(t *testing.T) {
	set := mask.New([]string{"hunter22"})
	const raw = "\x00\xff\xfe\x80hunter2\xffx\x00"
	if got := masked(set, raw); got != raw {
		t.Errorf("%q", got)
	}
}

func TestBordersDoNotMatter(t *testing.T) {
	set := mask.New([]string{"hunter22", "hunter22-longer", "22\n22hun"})
	words := []string{
		"hunter22", "hunter22-longer", "hunter", "x", "\n", "\r\n", " ", "22", "-longer", "22\n22hun",
		base64.StdEncoding.EncodeToString([]byte("hunter22-longer")), hex.EncodeToString([]byte("hunter22")), "68756e", "aHVu",
	}
	rapid.Check(t, func(t *rapid.T) {
		whole := strings.Join(rapid.SliceOf(rapid.SampledFrom(words)).Draw(t, "words"), "")
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

func FuzzMask(f *testing.F) {
	f.Add("hunter22", "it is hunter22", 5)
	f.Add("a\nb c", "a\r\nb%20c", 2)
	f.Fuzz(func(t *testing.T, secret, text string, cut int) {
		set := mask.New([]string{secret})
		cut = min(max(cut, 0), len(text))
		got := masked(set, text[:cut], text[cut:])
		if set == nil {
			if got != text {
				t.Errorf("%q became %q", text, got)
			}
			return
		}
		// Stars beside text may spell a secret that is made of stars.
		if !strings.Contains(secret, "*") && strings.Contains(got, secret) {
			t.Errorf("%q shows %q", got, secret)
		}
	})
}

func BenchmarkMask(b *testing.B) {
	text := bytes.Repeat([]byte("a line of a log that holds no secret at all, as most do 0123456789abcdef /usr/bin\n"), 1000)
	for name, secrets := range map[string][]string{"none": nil, "three": {"hunter22", "another-secret", "third/secret"}, "key": {strings.Repeat(key, 16)},
		"forms": {"th@t+is/1==ö", "line's <\"é&"}} {
		b.Run(name, func(b *testing.B) {
			m := mask.NewMasker(mask.New(secrets))
			b.SetBytes(int64(len(text)))
			var out []byte
			for b.Loop() {
				out = m.Mask(out[:0], text)
			}
		})
	}
}
