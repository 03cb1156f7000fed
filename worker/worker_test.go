package worker

import (
	"testing"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

// TestRuntimeIsSaid gives spans something to say of workers with and without an image.
func TestRuntimeIsSaid(t *testing.T) {
	for want, r := range map[string]spec.RuntimeSpec{
		"cpu_m=100 memory_mb=128":                    {Limits: spec.Quota{CPUm: 100, MemoryMB: 128}},
		"golang:1.26 cpu_m=1 memory_mb=2 gpu=3 io=4": {Image: "golang:1.26", Limits: spec.Quota{CPUm: 1, MemoryMB: 2, GPU: 3, IO: 4}},
	} {
		w := &worker{}
		if w.Runtime = r; w.runtime() != want {
			t.Errorf("%q, want %q", w.runtime(), want)
		}
	}
}

func TestWorkersAreNamedByTheirAssignments(t *testing.T) {
	const first, later = "asg_job_06h15p8rt3enfzrhgbv62jbg14_1_q1ynxek37bryt", "asg_job_06h15p8rz0ne1as1d9p23sn9hg_1_49gteavw5rdzg"
	a, b := workerID("acme", first), workerID("acme", later)
	if a != workerID("acme", first) || a == workerID("evil", first) || a == b {
		t.Errorf("%s, %s", a, b)
	}
	if a > b {
		t.Errorf("%s sorts after %s, which was made later", a, b)
	}
	for _, named := range []ident.Assignment{"asg_nightly_1_q1ynxek37bryt", "asg_job_1", first} {
		if w := workerID("acme", named); !ident.Valid(string(w)) {
			t.Errorf("%s is no name", w)
		}
	}
}
