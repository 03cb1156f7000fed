package pipelinefile

import (
	"cmp"
	"slices"
)

// The keys of each mapping in a pipeline file, as people would read them. Those
// after the first list of a form are the names that the API gives the same things,
// so that what the API answers is a pipeline file, too.
var (
	pipelineForm = form{"a pipeline", []string{"name", "env", "jobs"}, nil}
	jobForm      = form{"a job", []string{
		"image", "needs", "steps", "run", "command", "env", "secrets", "resources", "timeout", "retries", "affinity", "artifacts", "source", "compensate",
	}, []string{"timeout_ms", "retry_backoff_ms", "secret_refs"}}
	stepForm     = form{"a step", []string{"name", "run", "command", "env", "timeout", "retries"}, []string{"timeout_ms", "retry_backoff_ms"}}
	quotaForm    = form{"resources", []string{"cpu_m", "memory_mb", "gpu", "io"}, nil}
	retryForm    = form{"retries", []string{"limit", "backoff"}, nil}
	affinityForm = form{"affinity", []string{"by_executor_type", "by_zone", "by_pool"}, nil}
	artifactForm = form{"an artifact", []string{"name", "path", "version", "repository"}, nil}
	sourceForm   = form{"a source", []string{"repository", "name", "version"}, nil}
)

type form struct {
	what string
	keys []string
	more []string
}

func (f form) all() []string { return slices.Concat(f.keys, f.more) }

// elsewhere says what other systems' keys are called here, where they mean the same.
var elsewhere = map[string]string{
	"script": "run", "scripts": "run", "sh": "run", "bash": "run", "exec": "run", "commands": "run",
	"cmd": "command", "entrypoint": "command",
	"depends_on": "needs", "depends-on": "needs", "dependsOn": "needs", "dependencies": "needs", "after": "needs", "requires": "needs", "need": "needs",
	"environment": "env", "variables": "env", "vars": "env",
	"container": "image", "docker": "image",
	"timeout-minutes": "timeout", "timeoutSeconds": "timeout",
	"retry": "retries", "max_retries": "retries", "max": "limit", "count": "limit", "delay": "backoff",
	"secret": "secrets", "tasks": "jobs", "job": "jobs", "pipeline": "jobs", "workflows": "jobs",
	"step": "steps", "title": "name", "id": "name", "displayName": "name",
	"undo": "compensate", "rollback": "compensate", "artifact": "artifacts",
	"cpu": "cpu_m", "cpus": "cpu_m", "memory": "memory_mb", "mem": "memory_mb", "ram": "memory_mb", "gpus": "gpu",
	"limits": "resources", "requests": "resources", "node_selector": "affinity", "nodeSelector": "affinity", "zone": "by_zone", "pool": "by_pool", "executor": "by_executor_type",
	"file": "path", "repo": "repository",
}

// units are those of keys that others give in other ones.
var units = map[string]string{"cpu_m": "thousandths of a core", "memory_mb": "MiB"}

// absent says of keys that other systems have, and this one has not, what to do.
var absent = map[string]string{
	"on":       "a pipeline file says what to run, not when: run it with fragua run, or fragua pipeline run",
	"triggers": "a pipeline file says what to run, not when: run it with fragua run, or fragua pipeline run",
	"trigger":  "a pipeline file says what to run, not when: run it with fragua run, or fragua pipeline run",
	"uses":     "there are no actions to use; write the commands with run:",
	"if":       "there are no conditions; a script can end early with exit 0",
	"when":     "there are no conditions; a script can end early with exit 0",
	"stage":    "there are no stages; needs: names the jobs that must have succeeded first",
	"stages":   "there are no stages; needs: names the jobs that must have succeeded first",
	"runs-on":  "where a job runs is its affinity, such as affinity: {by_pool: NAME}; without it a job runs anywhere",
	"runs_on":  "where a job runs is its affinity, such as affinity: {by_pool: NAME}; without it a job runs anywhere",
	"args":     "command: holds the program and its arguments, as one list",
	"shell":    "run: is a script for /bin/sh; another shell is a program of command: [bash, -c, SCRIPT]",
	"attempts": "retries count the attempts after the first: three attempts are retries: 2",
	"outputs":  "a job hands on nothing but files: artifacts: keeps them, and source: has another job start from them",

	"before_script": "there is no script before: write it at the beginning of run:, or as the first of steps:",
	"matrix":        "there is no matrix; write one job for each case: an anchor (&name) and << repeat what they share",
	"strategy":      "there is no matrix; write one job for each case: an anchor (&name) and << repeat what they share",
}

// advice says what someone who wrote an unknown key may have meant. sure is true
// when it is a key of the form.
func (f form) advice(written string) (text string, sure bool) {
	if key, ok := elsewhere[written]; ok && slices.Contains(f.keys, key) {
		if unit := units[key]; unit != "" {
			return "it is called " + key + " here, in " + unit, true
		}
		return "it is called " + key + " here", true
	}
	if near := nearest(written, f.all()); near != "" {
		return "did you mean " + near + "?", true
	}
	if text, ok := absent[written]; ok {
		return text, false
	}
	return "", false
}

// nearest returns the name that written is most likely a slip of, or "".
func nearest(written string, names []string) string {
	if len(written) > 64 {
		return ""
	}
	best := slices.MinFunc(names, func(a, b string) int { return cmp.Compare(slips(written, a), slips(written, b)) })
	if slips(written, best) > max(1, len(best)/3) {
		return ""
	}
	return best
}

// slips counts the letters that are to be put in, left out, changed or exchanged
// with their neighbour to make b of a.
func slips(a, b string) int {
	older, old, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range old {
		old[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := old[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, old[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], older[j-2]+1)
			}
		}
		older, old, row = old, row, older
	}
	return old[len(b)]
}
