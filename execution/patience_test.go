package execution

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/spec"
	"fragua.dev/fragua/execution/agentclient"
)

// TestTimeInWhichThisProcessStoodStillIsNoSilence stops it, as its clock shows, while a
// worker is asked and between two such calls; and has a worker that never answers.
func TestTimeInWhichThisProcessStoodStillIsNoSilence(t *testing.T) {
	for _, byHand := range []bool{false, true} {
		for _, answers := range []bool{true, false} {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				var stood, asked atomic.Int64
				stand := func() { stood.Add(int64(52 * time.Second)) }
				b := newBench(t, func(c *Config) {
					c.Dir, c.Now = dir, func() time.Time { return time.Now().Add(time.Duration(stood.Load())) }
				})
				b.w.exec = func(context.Context) error {
					switch n := asked.Add(1); {
					case !answers:
						return agentclient.ErrUnreachable
					case n == 1:
						stand()
						return agentclient.ErrUnreachable
					case n == 20:
						time.AfterFunc(time.Millisecond, stand)
						return agentclient.ErrUnreachable
					case n < 40:
						return agentclient.ErrUnreachable
					}
					return nil
				}
				if byHand {
					b.lend()
					in := map[string]any{"step_id": "mine", "worker_id": "wrk_2", "command": []string{"ls"}}
					if code := b.call("/exec", in, nil); code != http.StatusCreated {
						t.Fatalf("%d", code)
					}
				} else {
					b.start(spec.Job{Command: []string{"make"}})
				}
				if answers {
					time.Sleep(time.Minute)
					synctest.Wait()
					if n := len(b.w.requests()); n != 1 {
						t.Errorf("by hand %v: it was lost while this process stood still: %d requests after %d calls", byHand, n, asked.Load())
					}
				} else {
					time.Sleep(lostAfter)
					synctest.Wait()
					before := asked.Load()
					d, _ := event.StepFailed.Read(b.hear(event.StepFailed.Subject)) // which waits for no longer than 10 s
					if d.Code != codeLost || !strings.Contains(d.Message, "45s") || before == asked.Load() {
						t.Errorf("by hand %v: %d calls, then %d: %+v", byHand, before, asked.Load(), d)
					}
				}
				b.Close()
			})
		}
	}
}
