package crash

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/test/program"
)

var errDown = errors.New("the server is down")

const (
	lookAtJobs  = 250 * time.Millisecond
	lookAtProcs = 100 * time.Millisecond
	pageSize    = 200
	maxEvent    = 8 << 20 // of one event in the stream, in bytes
)

// watchJobs looks at the jobs that have not ended, and at the latest ones that
// have, until ctx ends.
func (c *campaign) watchJobs(ctx context.Context) {
	for ; ctx.Err() == nil; wait(ctx, lookAtJobs) {
		var page struct {
			Items []view `json:"items"`
		}
		if _, err := c.look(ctx, "/jobs?limit="+strconv.Itoa(pageSize), &page); err != nil {
			continue
		}
		seen := map[string]bool{}
		for _, v := range page.Items {
			seen[v.ID] = true
			c.check.Saw(v)
		}
		for _, id := range c.check.Live() {
			if !seen[id] {
				c.lookAt(ctx, id)
			}
		}
	}
}

// lookAt looks at one job; it says whether there was an answer.
func (c *campaign) lookAt(ctx context.Context, id string) bool {
	var v view
	status, err := c.look(ctx, "/jobs/"+id, &v)
	if status == http.StatusNotFound {
		c.t.Errorf("seed %d: job %s was accepted, and is not there: %v", c.seed, id, err)
		return true
	}
	if err != nil {
		return false
	}
	c.check.Saw(v)
	return true
}

// watchProcs looks for what is alive, until ctx ends.
func (c *campaign) watchProcs(ctx context.Context) {
	for ; ctx.Err() == nil; wait(ctx, lookAtProcs) {
		at, all := c.alive()
		c.check.Alive(at, all)
	}
}

// alive returns the processes of jobs that were all alive at one moment.
func (c *campaign) alive() (time.Time, []life) {
	found := c.ours()
	at := time.Now()
	var out []life
	for _, p := range found {
		env := p.Env()
		attempt, err := strconv.Atoi(env["FRAGUA_ATTEMPT"])
		if err != nil || !p.Lives() { // who lives now and was found before at, was alive at it
			continue
		}
		out = append(out, life{env["FRAGUA_JOB_ID"], attempt, p.Pid, words(p)})
	}
	return at, out
}

// ours returns the living processes that steps of this campaign started.
func (c *campaign) ours() []program.Process {
	var out []program.Process
	for _, p := range program.Processes() {
		if p.Env()["MARKS"] == c.marks {
			out = append(out, p)
		}
	}
	return out
}

func words(p program.Process) string {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(p.Pid) + "/cmdline") // for people only
	s := strings.ReplaceAll(strings.TrimRight(string(b), "\x00"), "\x00", " ")
	s = s[strings.LastIndex(s, "\n")+1:]
	return fmt.Sprintf("%.60s, child of %d", s, p.Parent)
}

// listen follows the event stream over all restarts, until ctx ends.
func (c *campaign) listen(ctx context.Context) {
	for ; ctx.Err() == nil; wait(ctx, again) {
		if s := c.server.Load(); s != nil {
			c.follow(ctx, s) // its end is the server's end, or comes to light as missing events
		}
	}
}

func (c *campaign) follow(ctx context.Context, s *program.Server) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/events", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.Token)
	req.Header.Set("Accept", "text/event-stream")
	c.placeMu.Lock()
	req.Header.Set("Last-Event-ID", c.place)
	epoch := c.epoch
	c.placeMu.Unlock()
	res, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		c.count("events: " + res.Status)
		return errors.New(res.Status)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 64<<10), maxEvent)
	id, data := "", ""
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "" && data != "":
			e, err := event.Decode([]byte(data))
			if err != nil {
				c.t.Errorf("seed %d: the event stream: %v: %.200s", c.seed, err, data)
				return err
			}
			c.check.Heard(e)
			c.placeMu.Lock()
			if id != "" && epoch == c.epoch {
				c.place = id
			}
			c.placeMu.Unlock()
			data = ""
		case field == "id":
			id = value
		case field == "data":
			data += value
		}
	}
	return lines.Err()
}

// busLost begins the event stream anew: places in the old one mean nothing.
func (c *campaign) busLost() {
	c.check.BusLost(time.Now())
	c.placeMu.Lock()
	defer c.placeMu.Unlock()
	c.place = fromStart
	c.epoch++
}

// readMarks hands on what the steps wrote down.
func (c *campaign) readMarks() error {
	for _, id := range c.check.Jobs() {
		b, err := os.ReadFile(filepath.Join(c.marks, id))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		c.check.Marked(id, strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' }))
	}
	return nil
}
