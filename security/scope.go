package security

import (
	"regexp"
	"slices"
	"strings"
)

// scopeForm is how a scope is written: job:create, job:* or *.
var scopeForm = regexp.MustCompile(`^(\*|[a-z]+:(\*|[a-z]+))$`)

// covers says whether one of scopes opens what scope opens.
func covers(scopes []string, scope string) bool {
	domain, _, found := strings.Cut(scope, ":")
	for _, s := range scopes {
		if s == "*" || s == scope || found && s == domain+":*" {
			return true
		}
	}
	return false
}

// lacks returns those of wanted that scopes do not open.
func lacks(scopes, wanted []string) (more []string) {
	for _, s := range wanted {
		if !covers(scopes, s) {
			more = append(more, s)
		}
	}
	return more
}

// knows says whether some policy is opened by scope: a scope that opens nothing
// is a typing error.
func (p *policies) knows(scope string) bool {
	if scope == "*" {
		return true
	}
	if domain, ok := strings.CutSuffix(scope, ":*"); ok {
		return slices.ContainsFunc(p.scopes, func(s string) bool { return strings.HasPrefix(s, domain+":") })
	}
	return slices.Contains(p.scopes, scope)
}

// services are the scopes of the rooms, which act by themselves.
var services = map[string][]string{
	"orchestration": {"job:create", "job:retry", "job:cancel", "pipeline:execute"},
	"scheduling":    {"schedule:assign"},
	"worker":        {"worker:create"},
	"execution":     {"exec:run"},
	"artifact":      {"artifact:upload", "artifact:read"}, // what jobs leave behind, and start from
}
