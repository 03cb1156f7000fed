package worker

import (
	"testing"

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
