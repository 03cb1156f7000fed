package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"fragua.dev/fragua/internal/client"
)

// aView is a job that began at one second and ended at another; 0: not.
func aView(name, state string, began, ended int64) jobView {
	v := jobView{ID: name, Name: name, State: state, Attempts: 1}
	if began > 0 {
		at := time.Unix(began, 0)
		v.Started = &at
	}
	if ended > 0 {
		at := time.Unix(ended, 0)
		v.Finished = &at
	}
	return v
}

// aFollower prints lines, of a server that answers what each path stands for.
func aFollower(t *testing.T, answers map[string]http.HandlerFunc) (*follower, *bytes.Buffer) {
	mux := http.NewServeMux()
	for path, answer := range answers {
		mux.HandleFunc(path, answer)
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	var out bytes.Buffer
	return &follower{c: client.New(server.URL, ""), plain: true, out: &out, jobs: map[string]*followed{}}, &out
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, text) }
}

// TestJobsAreToldInTheOrderInWhichTheyEnded has the log of the first job come last.
func TestJobsAreToldInTheOrderInWhichTheyEnded(t *testing.T) {
	asked, log := make(chan struct{}), make(chan struct{})
	r, out := aFollower(t, map[string]http.HandlerFunc{"/logs/x": func(w http.ResponseWriter, q *http.Request) {
		close(asked)
		<-log
		says("said")(w, q)
	}})
	build := aView("build", "FAILED", 1, 2)
	build.Steps = []stepView{{Name: "step", Exec: "x"}}
	if err := r.heard(t.Context(), []jobView{aView("test", "CANCELLED", 0, 2), build, aView("undo", "SUCCEEDED", 3, 4)}); err != nil {
		t.Fatal(err)
	}
	<-asked
	for _, name := range []string{"test", "undo"} {
		select {
		case <-r.jobs[name].end:
			t.Errorf("%s is told before the last word of the first log", name)
		default:
		}
	}
	close(log)
	r.wg.Wait()
	if want := "build: RUNNING\nbuild/step | said\nbuild: FAILED\ntest: CANCELLED\nundo: SUCCEEDED\n"; out.String() != want {
		t.Errorf("told\n%swant\n%s", out.String(), want)
	}
}

// TestAttemptsThatCameAndWentBetweenLooksAreTold has a job fail for good when a look first
// sees its second attempt wait, and then its end.
func TestAttemptsThatCameAndWentBetweenLooksAreTold(t *testing.T) {
	const exit = "it ended with exit code 3"
	r, out := aFollower(t, map[string]http.HandlerFunc{
		"/logs/a":  says("a"),
		"/logs/c1": says("c attempt 1"), "/logs/c2": says("c attempt 2"), "/logs/c3": says("c attempt 3"), "/logs/c4": says("c attempt 4"),
		"/executions": says(`{"items": [
			{"exec_id": "c3", "step_id": "s", "attempt": 3, "started_at": "1970-01-01T00:00:06Z", "message": "` + exit + `"},
			{"exec_id": "c2", "step_id": "s", "attempt": 2, "started_at": "1970-01-01T00:00:05Z", "message": "` + exit + `"},
			{"exec_id": "c1", "step_id": "s", "attempt": 1, "started_at": "1970-01-01T00:00:04Z", "message": "` + exit + `"}]}`),
	})
	a := aView("a", "SUCCEEDED", 1, 2)
	a.Steps = []stepView{{Name: "step", Exec: "a"}}
	c := aView("c", "PENDING", 0, 0)
	c.Attempts, c.Steps = 2, []stepView{{ID: "s", Name: "step"}}
	c.Failure = &failure{Code: "exit", Message: exit}
	end := aView("c", "FAILED", 7, 8)
	end.Attempts, end.Steps, end.Failure = 4, []stepView{{ID: "s", Name: "step", Exec: "c4"}}, c.Failure
	for _, look := range [][]jobView{{c, a}, {end, a}, {end, a}} {
		if err := r.heard(t.Context(), look); err != nil {
			t.Fatal(err)
		}
	}
	r.wg.Wait()
	want := "a: RUNNING\na/step | a\na: SUCCEEDED\n"
	for n := 1; n < 4; n++ {
		want += fmt.Sprintf("c: RUNNING\nc/step | c attempt %d\nc: PENDING: %s\n", n, exit)
	}
	want += "c: RUNNING\nc/step | c attempt 4\nc: FAILED: " + exit + "\n"
	if out.String() != want {
		t.Errorf("told\n%swant\n%s", out.String(), want)
	}
}

// TestATryOfAStepThatCameAndWentBetweenLooksIsTold sees only its second try.
func TestATryOfAStepThatCameAndWentBetweenLooksIsTold(t *testing.T) {
	r, out := aFollower(t, map[string]http.HandlerFunc{
		"/logs/t1": says("try 1"), "/logs/t2": says("try 2"),
		"/executions": says(`{"items": [{"exec_id": "t1", "step_id": "s", "attempt": 1, "started_at": "1970-01-01T00:00:01Z"}]}`),
	})
	j := aView("j", "RUNNING", 1, 0)
	j.Steps = []stepView{{ID: "s", Name: "step", Exec: "t2", Try: 2}}
	if err := r.heard(t.Context(), []jobView{j}); err != nil {
		t.Fatal(err)
	}
	r.wg.Wait()
	if want := "j: RUNNING\nj/step | try 1\nj/step | try 2\n"; out.String() != want {
		t.Errorf("told\n%swant\n%s", out.String(), want)
	}
}
