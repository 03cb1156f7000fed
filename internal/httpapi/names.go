package httpapi

import (
	"path"
	"reflect"
	"strings"
	"unicode"

	"github.com/danielgtaylor/huma/v2"

	"fragua.dev/fragua/contract/spec"
)

// specs are the types that share their Go name with what they are specifications
// of; in the API's description they bear the blueprint's names.
var specs = map[reflect.Type]string{
	reflect.TypeFor[spec.Job]():         "JobSpec",
	reflect.TypeFor[spec.Step]():        "StepSpec",
	reflect.TypeFor[spec.Pipeline]():    "PipelineSpec",
	reflect.TypeFor[spec.PipelineJob](): "PipelineJobSpec",
	reflect.TypeFor[spec.Artifact]():    "ArtifactSpec",
	reflect.TypeFor[spec.Quota]():       "ResourceQuota",
	reflect.TypeFor[spec.Affinity]():    "AffinityPolicy",
	reflect.TypeFor[spec.LogRef]():      "LogStreamRef",
}

// schemaName names a type in the API's description.
func schemaName(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if name, ok := specs[t]; ok {
		return name
	}
	name := huma.DefaultSchemaNamer(t, hint)
	if first := t.Name(); first != "" && unicode.IsLower(rune(first[0])) { // a room's own: others may have one of this name
		room := path.Base(t.PkgPath())
		name = strings.ToUpper(room[:1]) + room[1:] + name
	}
	return name
}
