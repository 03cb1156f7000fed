package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"fragua.dev/fragua/internal/client"
)

// TestARunSaysWhyAJobWaits has a run of which one job waits, one needs it, and one is
// not known to the server that explains.
func TestARunSaysWhyAJobWaits(t *testing.T) {
	asked, free := map[string]int{}, 100
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked[r.URL.Path]++
		if r.URL.Path != "/jobs/big/explain" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, `{"position": 1, "text": "long", "reasons": [{"node_id": "vm", "reason": "%d cpu_m free, 900 asked"}, {"node_id": "vm2", "reason": "x"}]}`, free)
	}))
	defer server.Close()
	var out bytes.Buffer
	r := &follower{c: client.New(server.URL, ""), plain: true, out: &out, jobs: map[string]*followed{}}
	var run runView
	if err := json.Unmarshal([]byte(`{"jobs": [{"job_id": "late", "name": "late", "state": "PENDING", "needs": ["big"]},
		{"job_id": "odd", "name": "odd", "state": "PENDING"}, {"job_id": "big", "name": "big", "state": "PENDING"}]}`), &run); err != nil {
		t.Fatal(err)
	}
	for _, j := range run.Jobs {
		f := newFollowed()
		f.view = jobView{ID: j.ID, Name: j.Name, State: j.State, Attempts: 1}
		r.jobs[j.ID], r.order = f, append(r.order, j.ID)
	}
	now := time.Now()
	for i := range 200 { // 20 s of looks
		free = 100 + i
		r.askWhy(t.Context(), run, now.Add(time.Duration(i)*lookEvery))
		r.show(t.Context())
		r.wg.Wait()
		if early := time.Duration(i)*lookEvery < waitsLong; early && len(asked) > 0 {
			t.Fatalf("asked after %v", time.Duration(i)*lookEvery)
		}
	}
	if want := "big: waits for a place: vm: 130 cpu_m free, 900 asked; and 1 more\n"; out.String() != want {
		t.Errorf("said\n%swant once\n%s", out.String(), want)
	}
	if n := asked["/jobs/big/explain"]; n < 4 || n > 5 || asked["/jobs/late/explain"] > 0 {
		t.Errorf("asked %v within 20 s", asked)
	}
	if tree := strings.Join(r.tree(view{}), "\n"); !strings.Contains(tree, "· big  waits for a place: vm: ") || !strings.HasSuffix(tree, "· big  waits for a place: "+r.jobs["big"].waits) {
		t.Errorf("the tree shows\n%s", tree)
	}
}

func TestFewJobsAreAskedAbout(t *testing.T) {
	r, run := &follower{jobs: map[string]*followed{}}, runView{}
	for i := range 50 {
		id := fmt.Sprint(i)
		r.jobs[id] = &followed{view: jobView{ID: id, State: "PENDING"}, pending: time.Unix(0, 1)}
		run.Jobs = append(run.Jobs, struct {
			ID    string   `json:"job_id"`
			Name  string   `json:"name"`
			State string   `json:"state"`
			Needs []string `json:"needs"`
		}{ID: id})
	}
	if got := r.waiting(run, time.Now()); len(got) != mostAsked {
		t.Errorf("%d", len(got))
	}
}

// TestAJobThatIsTriedAgainSoonWaitsForNoPlace has an explanation of the attempt before.
func TestAJobThatIsTriedAgainSoonWaitsForNoPlace(t *testing.T) {
	if why := (explainView{Text: "was on node vm"}).why(); why != "" {
		t.Error(why)
	}
}
