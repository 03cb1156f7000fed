package mask_test

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"
	"testing"

	"fragua.dev/fragua/internal/mask"
)

// TestSecretsAreHiddenAsWritersWriteThem has what the writers of other languages make
// of secrets, of which nothing may be left.
func TestSecretsAreHiddenAsWritersWriteThem(t *testing.T) {
	const (
		password = `p@ss+wörd/12345==`
		special  = `Kq/9+zT=~a!b*(c)'d<e>&f"gé`
		spanish  = `contraseña+42<x>`
		inBase64 = `q83vEjRWeJCrze8SNFZ4+A/bcde==`
		astral   = `a𝄞b\c"d`
	)
	for _, c := range []struct{ writer, secret, text string }{
		{"Gson", password, `p@ss+wörd/12345\u003d\u003d`},
		{"Gson", special, `Kq/9+zT\u003d~a!b*(c)\u0027d\u003ce\u003e\u0026f\"gé`},
		{"Gson", spanish, `contraseña+42\u003cx\u003e`},
		{"Gson", inBase64, `q83vEjRWeJCrze8SNFZ4+A/bcde\u003d\u003d`},
		{"System.Text.Json", password, `p@ss\u002Bw\u00F6rd/12345==`},
		{"System.Text.Json", special, `Kq/9\u002BzT=~a!b*(c)\u0027d\u003Ce\u003E\u0026f\u0022g\u00E9`},
		{"System.Text.Json", spanish, `contrase\u00F1a\u002B42\u003Cx\u003E`},
		{"System.Text.Json", inBase64, `q83vEjRWeJCrze8SNFZ4\u002BA/bcde==`},
		{"System.Text.Json", astral, `a\uD834\uDD1Eb\\c\u0022d`},
		{"Jackson in ASCII", password, `p@ss+w\u00F6rd/12345==`},
		{"Jackson in ASCII", special, `Kq/9+zT=~a!b*(c)'d<e>&f\"g\u00E9`},
		{"Jackson in ASCII", astral, `a\uD834\uDD1Eb\\c\"d`},
		{"Newtonsoft for HTML", special, `Kq/9+zT=~a!b*(c)\u0027d\u003ce\u003e\u0026f\u0022gé`},
		{"PHP with all care", special, `Kq\/9+zT=~a!b*(c)\u0027d\u003Ce\u003E\u0026f\u0022g\u00e9`},
		{"UserPassword", password, `p%40ss+w%C3%B6rd%2F12345==`},
		{"UserPassword", special, `Kq%2F9+zT=~a%21b%2A%28c%29%27d%3Ce%3E&f%22g%C3%A9`},
		{"UserPassword", inBase64, `q83vEjRWeJCrze8SNFZ4+A%2Fbcde==`},
		{".NET's UrlEncode", password, `p%40ss%2bw%c3%b6rd%2f12345%3d%3d`},
		{".NET's UrlEncode", special, `Kq%2f9%2bzT%3d%7ea!b*(c)%27d%3ce%3e%26f%22g%c3%a9`},
		{"Java's URLEncoder", special, `Kq%2F9%2BzT%3D%7Ea%21b*%28c%29%27d%3Ce%3E%26f%22g%C3%A9`},
		{"PHP's urlencode", special, `Kq%2F9%2BzT%3D%7Ea%21b%2A%28c%29%27d%3Ce%3E%26f%22g%C3%A9`},
		{"decimal entities", password, `p@ss+w&#246;rd/12345==`},
		{"hexadecimal entities", password, `p@ss+w&#xF6;rd/12345==`},
		{"small entities", password, `p@ss+w&#xf6;rd/12345==`},
		{"all decimal entities", password, `p@ss&#43;w&#246;rd/12345&#61;&#61;`},
		{"all hexadecimal entities", password, `p@ss&#x2B;w&#xF6;rd/12345&#x3D;&#x3D;`},
		{"all small entities", password, `p@ss&#x2b;w&#xf6;rd/12345&#x3d;&#x3d;`},
		{"named and decimal entities", special, `Kq/9+zT=~a!b*(c)&#39;d&lt;e&gt;&amp;f&quot;g&#233;`},
		{"named entities, and one of Python's", special, `Kq/9+zT=~a!b*(c)&#x27;d&lt;e&gt;&amp;f&quot;g&#233;`},
		{"decimal entities", special, `Kq/9+zT=~a!b*(c)&#39;d&#60;e&#62;&#38;f&#34;g&#233;`},
		{"hexadecimal entities", special, `Kq/9+zT=~a!b*(c)&#x27;d&#x3C;e&#x3E;&#x26;f&#x22;g&#xE9;`},
		{"all decimal entities", special, `Kq/9&#43;zT&#61;~a!b*(c)&#39;d&#60;e&#62;&#38;f&#34;g&#233;`},
		{".NET's HtmlEncoder", special, `Kq/9&#x2B;zT=~a!b*(c)&#x27;d&lt;e&gt;&amp;f&quot;g&#xE9;`},
		{"decimal entities, é as it is", special, `Kq/9+zT=~a!b*(c)&#39;d&#60;e&#62;&#38;f&#34;gé`},
		{"named and decimal entities", spanish, `contrase&#241;a+42&lt;x&gt;`},
		{"all small entities", spanish, `contrase&#xf1;a&#x2b;42&#x3c;x&#x3e;`},
		{"all decimal entities", inBase64, `q83vEjRWeJCrze8SNFZ4&#43;A/bcde&#61;&#61;`},
		{"entities beyond the first plane", astral, `a&#119070;b\c"d`},
		{"hexadecimal beyond the first plane", astral, `a&#x1D11E;b\c&quot;d`},
	} {
		if got := masked(mask.New([]string{c.secret}), "before ", c.text, " after"); got != "before *** after" {
			t.Errorf("%s of %q: %q", c.writer, c.secret, got)
		}
	}
	for _, secret := range []string{password, special, spanish, inBase64, astral} {
		set := mask.New([]string{secret})
		for form, text := range map[string]string{
			"as it is": secret, "hex": hex.EncodeToString([]byte(secret)), "query": url.QueryEscape(secret), "user": strings.TrimPrefix(url.UserPassword("", secret).String(), ":"),
		} {
			if got := masked(set, "before ", text, " after"); got != "before *** after" {
				t.Errorf("%s of %q: %q", form, secret, got)
			}
		}
		if got := masked(set, base64.StdEncoding.EncodeToString([]byte(secret))); !strings.Contains(got, mask.Stars) || len(got) > 10 {
			t.Errorf("base64 of %q: %q", secret, got)
		}
	}
}

// TestOnlyDigitsOfEscapesAreSmallOrCapital has texts that differ from a form elsewhere.
func TestOnlyDigitsOfEscapesAreSmallOrCapital(t *testing.T) {
	set := mask.New([]string{`é=ab/cdef`})
	for _, text := range []string{`\u00e9=aB/cdef`, `%C3%A9=AB%2Fcdef`, `&#xE9;=Ab/cdef`, `\U00e9=ab/cdef`, `&#XE9;=ab/cdef`} {
		if got := masked(set, text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}
