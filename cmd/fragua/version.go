package main

import "runtime/debug"

// version is set by the linker for releases; other builds say what they were
// made from.
var version = "dev"

// revision returns the commit that this program was built from, if it is known.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	rev, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+changes"
		}
	}
	if len(rev) > 12 {
		rev = rev[:12]
	}
	return rev + dirty
}
