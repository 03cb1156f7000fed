package httpapi

import "testing"

func TestFaultsAreSaidInWords(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`{"name":"x","count":0.5}`, "want a whole number"},
		{`{"name":"x","count":"1"}`, "want a whole number"},
		{`{"count":1}`, "is missing"},
		{`{"name":"x","other":1}`, "there is no such field here"},
		{`{"name":5}`, "want a text"},
	} {
		p := readProblem(t, serve(t).do("POST", "/things", c.body), 422)
		if len(p.Errors) != 1 || p.Errors[0].Message != c.want {
			t.Errorf("%s: %+v, want %q", c.body, p.Errors, c.want)
		}
	}
	for in, want := range map[string]string{
		"expected number <= 1.024e+06":                  "want at most 1024000",
		"expected number <= 6.048e+08":                  "want at most 604800000",
		"expected number >= 1":                          "want at least 1",
		"expected length <= 128":                        "want at most 128 characters",
		"expected array length >= 1":                    "want 1 or more items",
		`expected value to be one of "A, B"`:            "want one of A, B",
		"expected string to match pattern ^[0-9]$":      "want a text of the form ^[0-9]$",
		"expected object with at least 1 properties":    "want 1 or more entries",
		"expected string to match pattern ^[a-z]*$":     "want small letters",
		"what nobody has heard of stays as it was said": "what nobody has heard of stays as it was said",
	} {
		if got := words(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}
