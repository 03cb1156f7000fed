package main

import (
	"bytes"
	"testing"
	"time"
)

// aFollowed is a job that began at one second and ended at another; 0: not.
func aFollowed(name, state string, began, ended int64) *followed {
	f := newFollowed()
	f.view = jobView{Name: name, State: state, Attempts: 1}
	if began > 0 {
		at := time.Unix(began, 0)
		f.view.Started = &at
	}
	if ended > 0 {
		at := time.Unix(ended, 0)
		f.view.Finished = &at
	}
	return f
}

// TestJobsAreToldInTheOrderInWhichTheyEnded has the log of the first job come last.
func TestJobsAreToldInTheOrderInWhichTheyEnded(t *testing.T) {
	var out bytes.Buffer
	first := aFollowed("build", "FAILED", 1, 2)
	first.open = 1
	r := &follower{plain: true, out: &out, order: []string{"3", "1", "2"}, jobs: map[string]*followed{
		"1": first, "2": aFollowed("undo", "SUCCEEDED", 3, 4), "3": aFollowed("test", "CANCELLED", 0, 2),
	}}
	r.placed()
	r.show()
	if out.Len() > 0 {
		t.Errorf("told before the last word of the first log:\n%s", out.String())
	}
	first.open = 0
	r.show()
	r.show()
	if want := "build: FAILED\ntest: CANCELLED\nundo: SUCCEEDED\n"; out.String() != want {
		t.Errorf("told\n%swant\n%s", out.String(), want)
	}
}
