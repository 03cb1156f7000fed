package main

import (
	"bytes"
	"testing"
)

// TestWhatFailedIsToldBeforeWhatWasCancelledForIt lets the log of a failed job come
// after the end of the jobs that needed it.
func TestWhatFailedIsToldBeforeWhatWasCancelledForIt(t *testing.T) {
	var out bytes.Buffer
	failed := &followed{view: jobView{Name: "build", State: "FAILED"}, open: 1}
	r := &follower{plain: true, out: &out, order: []string{"1", "2"}, jobs: map[string]*followed{
		"1": failed, "2": {view: jobView{Name: "test", State: "CANCELLED"}},
	}}
	r.show()
	if out.Len() > 0 {
		t.Errorf("told before the last word of the log:\n%s", out.String())
	}
	failed.open = 0
	r.show()
	if want := "build: FAILED\ntest: CANCELLED\n"; out.String() != want {
		t.Errorf("told\n%swant\n%s", out.String(), want)
	}
}
