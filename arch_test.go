package fragua_test

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "fragua.dev/fragua"

// rooms is the ground floor: the contexts of the blueprint, and the console's
// backend. A room is a door to itself; its packages are its own.
var rooms = []string{"orchestration", "scheduling", "worker", "execution", "telemetry", "security", "artifact", "console"}

// homes says which packages may know a heavy or dangerous dependency, so that it
// can be replaced by changing one place.
var homes = []struct{ dependency, home, why string }{
	{"modernc.org/sqlite", "internal/sqldb", "one writer, one durability setting: whoever opens SQLite elsewhere gets neither"},
	{"github.com/nats-io/", "internal/bus", "rooms know events, and not what carries them"},
	{"github.com/cedar-policy/", "security", "policies are decided in one place, behind contract/authz"},
	{"github.com/go-jose/", "security", "tokens are made and read in one place"},
	{"github.com/klauspost/compress", "execution cmd/fragua test", "archives and logs travel between agents and clients only"},
	{"github.com/spf13/cobra", "cmd/fragua", "the command line is not a library"},
	{"github.com/goccy/go-yaml", "internal/pipelinefile internal/yamlwords cmd/fragua", "files of people are read with a guard against bombs"},
	{"github.com/prometheus/", "internal/observe telemetry", "rooms measure through observe"},
	{"go.opentelemetry.io/", "internal/observe", "rooms name spans through observe"},
}

type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p listed
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// within returns a package's path inside the module, and whether it is ours.
func within(path string) (string, bool) {
	if path == module {
		return "", true
	}
	return strings.CutPrefix(path, module+"/")
}

func top(path string) string {
	first, _, _ := strings.Cut(path, "/")
	return first
}

// TestPlanOfTheHouse keeps the one direction in which code may know other code:
// cmd → rooms → internal → contract → the standard library.
func TestPlanOfTheHouse(t *testing.T) {
	floor := map[string]int{"contract": 0, "internal": 1, "cmd": 3, "test": 3, "": 3}
	for _, r := range rooms {
		floor[r] = 2
	}
	for _, p := range packages(t) {
		from, _ := within(p.ImportPath)
		height, known := floor[top(from)]
		if !known {
			t.Errorf("%s is in no part of the house: see ARCHITECTURE.md", from)
			continue
		}
		for _, path := range p.Imports {
			to, ours := within(path)
			if !ours {
				continue
			}
			switch a, b := top(from), top(to); {
			case floor[b] > height:
				t.Errorf("%s imports %s: what lies below does not know what stands on it", from, to)
			case from == "worker/provider/providertest" && to == "execution/agentclient":
				// The suite of providers, for tests alone, calls workers as the
				// execution room does.
			case height == 2 && floor[b] == 2 && a != b:
				t.Errorf("%s imports %s: a room tells another by an event, or asks through contract/", from, to)
			case a == "contract" && b == "internal":
				t.Errorf("%s imports %s: the corridor knows no pipes", from, to)
			}
		}
		if top(from) == "contract" {
			for _, path := range p.Imports {
				if strings.Contains(top(path), ".") && !strings.HasPrefix(path, module) {
					t.Errorf("%s imports %s: the corridor needs the standard library alone", from, path)
				}
			}
		}
	}
}

// TestHeavyDependenciesHaveOneHome keeps each heavy library where it can be replaced.
func TestHeavyDependenciesHaveOneHome(t *testing.T) {
	for _, p := range packages(t) {
		from, _ := within(p.ImportPath)
		for _, h := range homes {
			uses := slices.ContainsFunc(p.Imports, func(path string) bool { return strings.HasPrefix(path, h.dependency) })
			at := slices.ContainsFunc(strings.Fields(h.home), func(home string) bool { return from == home || strings.HasPrefix(from, home+"/") })
			if uses && !at {
				t.Errorf("%s imports %s, whose home is %s: %s", from, h.dependency, h.home, h.why)
			}
		}
		if slices.ContainsFunc(p.Imports, func(path string) bool { return strings.HasPrefix(path, "github.com/santhosh-tekuri/jsonschema") }) {
			t.Errorf("%s imports a JSON Schema validator, whose start costs each worker 5 ms: tests only", from)
		}
	}
}
