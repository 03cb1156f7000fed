package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"fragua.dev/fragua/test/program"
)

const (
	startTime = 2 * time.Minute
	stopTime  = 30 * time.Second
)

// A server is the program at work, and who calls it.
type server struct {
	*program.Server
	dir    string
	client *http.Client
}

// serve starts the program in a data folder of this name, new or not.
func (b *bench) serve(ctx context.Context, name string) (*server, error) {
	dir := filepath.Join(b.home, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	s, err := program.Start(ctx, b.exe, dir, b.log)
	if err != nil {
		return nil, err
	}
	return &server{Server: s, dir: dir, client: &http.Client{
		Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 512, MaxConnsPerHost: 512},
	}}, nil
}

// stop ends the server, and its agents with it.
func (s *server) stop() error {
	s.client.CloseIdleConnections()
	return s.Stop(stopTime)
}

// A job is what the measurements need of one.
type job struct {
	ID       string     `json:"job_id"`
	State    string     `json:"state"`
	Finished *time.Time `json:"finished_at"`
	Steps    []struct {
		Exec     string     `json:"exec_id"`
		Started  *time.Time `json:"started_at"`
		Finished *time.Time `json:"finished_at"`
	} `json:"steps"`
}

func (s *server) post(ctx context.Context, command ...string) (j job, err error) {
	_, err = s.Call(ctx, s.client, http.MethodPost, "/jobs", map[string]any{"spec": map[string]any{"command": command}}, &j)
	return j, err
}

func (s *server) get(ctx context.Context, id string) (j job, err error) {
	_, err = s.Call(ctx, s.client, http.MethodGet, "/jobs/"+id, nil, &j)
	return j, err
}

// finish runs a job to its good end, and returns it. Nobody asks for it before
// patience is over, so that asking does not disturb what is measured.
func (s *server) finish(ctx context.Context, patience time.Duration, command ...string) (job, error) {
	j, err := s.post(ctx, command...)
	if err != nil {
		return j, err
	}
	return s.await(ctx, j.ID, patience)
}

func (s *server) await(ctx context.Context, id string, patience time.Duration) (job, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		pause(ctx, patience)
		j, err := s.get(ctx, id)
		if err != nil {
			return j, err
		}
		if j.Finished != nil {
			if j.State != "SUCCEEDED" || len(j.Steps) == 0 || j.Steps[0].Started == nil {
				return j, fmt.Errorf("job %s ended as %s", id, j.State)
			}
			return j, nil
		}
		patience = 20 * time.Millisecond
	}
}

// drain waits until no job is on its way.
func (s *server) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	for _, state := range []string{"PENDING", "SCHEDULED", "RUNNING"} { // the way they go
		for {
			var page struct {
				Items []job `json:"items"`
			}
			if _, err := s.Call(ctx, s.client, http.MethodGet, "/jobs?limit=1&state="+state, nil, &page); err != nil {
				return err
			}
			if len(page.Items) == 0 {
				break
			}
			pause(ctx, 50*time.Millisecond)
		}
	}
	return nil
}

// latest returns the n jobs that were created last.
func (s *server) latest(ctx context.Context, n int) ([]job, error) {
	var out []job
	for cursor := ""; len(out) < n; {
		var page struct {
			Items []job  `json:"items"`
			Next  string `json:"next_cursor"`
		}
		if _, err := s.Call(ctx, s.client, http.MethodGet, "/jobs?limit="+strconv.Itoa(min(1000, n-len(out)))+"&cursor="+cursor, nil, &page); err != nil {
			return nil, err
		}
		out = append(out, page.Items...)
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	return out, nil
}

// pause waits for d, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// quantile returns the value below which a share q of all values lies.
func quantile(values []float64, q float64) float64 {
	v := slices.Sorted(slices.Values(values))
	return v[min(len(v)-1, int(q*float64(len(v))))]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
