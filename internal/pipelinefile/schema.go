package pipelinefile

import (
	"encoding/json"
	"fmt"

	"fragua.dev/fragua/contract/spec"
)

// SchemaURL is the name of the schema that editors find files by.
const SchemaURL = "https://fragua.dev/schema/fragua.schema.json"

type schema map[string]any

// Schema returns the JSON Schema (2020-12) of a pipeline file, which gives
// editors completion and errors. Circles, and names that nothing has, it cannot
// find: fragua validate does.
func Schema() []byte {
	root := object(pipelineForm, schema{
		"name": about(ref("name"), "What the pipeline is called"),
		"env":  about(ref("env"), "Environment variables of every job"),
		"jobs": schema{
			"type": "object", "minProperties": 1, "maxProperties": 1000, "description": "The jobs, by name",
			"propertyNames": ref("name"), "additionalProperties": ref("job"),
		},
	}, "name", "jobs")
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["$id"] = SchemaURL
	root["title"] = "Fragua pipeline"
	root["$defs"] = schema{
		"name": schema{"type": []string{"string", "number", "boolean"}, "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"},
		"text": schema{"type": []string{"string", "number", "boolean"}},
		"env": schema{
			"type": "object", "maxProperties": spec.MaxEnv, "propertyNames": schema{"pattern": "^[A-Za-z_][A-Za-z0-9_]{0,254}$"},
			"additionalProperties": ref("text"),
		},
		"duration":     schema{"type": "string", "pattern": `^([0-9]{1,5}d|([0-9]+(\.[0-9]+)?(h|m|s|ms|us|ns))+)$`, "examples": []string{"90s", "5m", "1h30m"}},
		"milliseconds": schema{"type": "integer", "minimum": 1, "maximum": spec.MaxTimeoutMS},
		"retries": schema{"oneOf": []schema{
			{"type": "integer", "minimum": 0, "maximum": spec.MaxRetries},
			object(retryForm, schema{
				"limit":   schema{"type": "integer", "minimum": 0, "maximum": spec.MaxRetries, "description": "How often"},
				"backoff": about(ref("duration"), "Wait before the first; doubled for each further one, with jitter"),
			}, "limit"),
		}},
		"command":  schema{"type": "array", "minItems": 1, "maxItems": 4096, "items": ref("text")},
		"names":    oneOrMore(ref("name"), 1000),
		"secrets":  oneOrMore(schema{"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,254}$"}, 64),
		"quota":    quotaSchema(),
		"affinity": affinitySchema(),
		"artifact": object(artifactForm, schema{
			"name":       about(ref("name"), "What it is called"),
			"path":       schema{"type": "string", "minLength": 1, "maxLength": 4096, "pattern": "^[^/]", "description": "Within the workspace; a folder is kept as a tar archive"},
			"version":    about(ref("name"), "The run's id unless given, with the number of its try from the second on"),
			"repository": about(ref("name"), "The pipeline's name unless given"),
		}, "name", "path"),
		"source": object(sourceForm, schema{
			"repository": about(ref("name"), "The pipeline's name unless given"),
			"name":       ref("name"),
			"version":    about(ref("name"), "What a job that this one needs, directly or through others, keeps in the same run, unless given"),
		}, "name"),
		"step": stepSchema(),
		"job":  jobSchema(),
	}
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("pipelinefile: %v", err)) // maps and texts of our own
	}
	return append(out, '\n')
}

func jobSchema() schema {
	s := object(jobForm, schema{
		"image":            schema{"type": "string", "maxLength": 512, "description": "Container image the steps run in; the process provider ignores it"},
		"needs":            about(ref("names"), "Jobs that must have succeeded first"),
		"steps":            schema{"type": "array", "minItems": 1, "maxItems": 1000, "items": ref("step"), "description": "What to run, in this order, until one fails"},
		"run":              about(ref("text"), "A script for sh -e: short for one step"),
		"command":          about(ref("command"), "Program and arguments, without a shell: short for one step"),
		"env":              about(ref("env"), "Environment variables of every step"),
		"secrets":          about(ref("secrets"), "Secrets that the steps see as environment variables"),
		"secret_refs":      about(ref("secrets"), "The API's name of secrets"),
		"resources":        about(ref("quota"), "What the job may use of a node"),
		"timeout":          about(ref("duration"), "Limit of one attempt; an hour unless given"),
		"timeout_ms":       about(ref("milliseconds"), "The API's form of timeout"),
		"retries":          about(ref("retries"), "How many more attempts a job gets that failed or was lost"),
		"retry_backoff_ms": about(ref("milliseconds"), "The API's form of retries.backoff"),
		"affinity":         about(ref("affinity"), "Where the job may run"),
		"artifacts":        schema{"type": "array", "maxItems": 64, "items": ref("artifact"), "description": "Files kept when the job succeeds"},
		"compensate":       schema{"type": "array", "maxItems": 100, "items": ref("step"), "description": "Steps that undo this job when the run fails after it succeeded"},
		"source":           about(ref("source"), "Files laid into the workspace before the first step"),
	})
	s["oneOf"] = []schema{{"required": []string{"run"}}, {"required": []string{"command"}}, {"required": []string{"steps"}}}
	return s
}

func stepSchema() schema {
	s := object(stepForm, schema{
		"name":             schema{"type": []string{"string", "number", "boolean"}, "maxLength": 128, "description": "Shown to people; step-1, step-2, … unless given"},
		"run":              about(ref("text"), "A script for sh -e"),
		"command":          about(ref("command"), "Program and arguments, without a shell"),
		"env":              about(ref("env"), "Environment variables of this step, over the job's"),
		"timeout":          about(ref("duration"), "Limit of one try"),
		"timeout_ms":       about(ref("milliseconds"), "The API's form of timeout"),
		"retries":          about(ref("retries"), "How many more tries the step gets on the same worker"),
		"retry_backoff_ms": about(ref("milliseconds"), "The API's form of retries.backoff"),
	})
	s["oneOf"] = []schema{{"required": []string{"run"}}, {"required": []string{"command"}}}
	return s
}

func quotaSchema() schema {
	amount := func(most int, text string) schema {
		return schema{"type": "integer", "minimum": 0, "maximum": most, "description": text}
	}
	return object(quotaForm, schema{
		"cpu_m":     amount(1_024_000, fmt.Sprintf("Thousandths of a CPU core; %d unless given", spec.DefaultCPUm)),
		"memory_mb": amount(16_777_216, fmt.Sprintf("Memory in MiB; %d unless given", spec.DefaultMemoryMB)),
		"gpu":       amount(1024, "Whole GPUs"),
		"io":        amount(1_000_000, "Disk and network weight, in MB/s"),
	})
}

func affinitySchema() schema {
	text := func(about string) schema {
		return schema{"type": []string{"string", "number", "boolean"}, "maxLength": 128, "description": about}
	}
	return object(affinityForm, schema{
		"by_executor_type": text("Provider of the worker: process, docker, kubernetes"),
		"by_zone":          text("Zone of the node"),
		"by_pool":          text("Pool of the node"),
	})
}

// object returns the schema of a mapping. It describes every key of the form, and
// no other.
func object(f form, properties schema, required ...string) schema {
	if len(properties) != len(f.all()) {
		panic("pipelinefile: the schema of " + f.what + " is not its form")
	}
	for _, k := range f.all() {
		if properties[k] == nil {
			panic("pipelinefile: the schema of " + f.what + " lacks " + k)
		}
	}
	s := schema{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

func ref(name string) schema { return schema{"$ref": "#/$defs/" + name} }

func about(s schema, text string) schema {
	s["description"] = text
	return s
}

func oneOrMore(item schema, most int) schema {
	return schema{"oneOf": []schema{item, {"type": "array", "maxItems": most, "uniqueItems": true, "items": item}}}
}
