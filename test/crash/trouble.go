package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"fragua.dev/fragua/test/program"
)

// aftermath is how long a job may still be lost by what was done to its agent.
const aftermath = 3 * time.Second

// A trouble is one way to make the platform suffer. Afterwards the server is up.
type trouble struct {
	name   string
	weight int
	do     func(context.Context, *campaign, *rand.Rand) error
}

func draw(r *rand.Rand, all []trouble) trouble {
	sum := 0
	for _, f := range all {
		sum += f.weight
	}
	n := r.IntN(sum)
	for _, f := range all {
		if n -= f.weight; n < 0 {
			return f
		}
	}
	return all[0]
}

// troubles are what a campaign draws from.
var troubles = []trouble{
	{"kill the server", 55, func(ctx context.Context, c *campaign, r *rand.Rand) error {
		c.down()
		wait(ctx, upTo(r, 300))
		return c.up(ctx)
	}},
	{"kill the server while it starts", 8, func(ctx context.Context, c *campaign, r *rand.Rand) error {
		c.down()
		for range 1 + r.IntN(3) {
			s, err := program.Launch(c.exe, c.dir, c.log)
			if err != nil {
				return err
			}
			c.last = s
			wait(ctx, upTo(r, 250))
			s.Kill()
		}
		return c.up(ctx)
	}},
	{"kill an agent", 12, func(_ context.Context, c *campaign, r *rand.Rand) error {
		if a, ok := c.agent(r); ok {
			c.check.Touched(time.Now(), time.Now().Add(aftermath))
			a.Signal(syscall.SIGKILL)
		}
		return nil
	}},
	{"kill the server, and an agent that outlived it", 6, func(ctx context.Context, c *campaign, r *rand.Rand) error {
		c.down()
		from := time.Now()
		if a, ok := c.agent(r); ok {
			a.Signal(syscall.SIGKILL)
		}
		err := c.up(ctx)
		c.check.Touched(from, time.Now().Add(aftermath))
		return err
	}},
	{"kill the server and all agents", 5, func(ctx context.Context, c *campaign, _ *rand.Rand) error {
		c.down()
		from := time.Now()
		for _, a := range program.Agents(c.exe) {
			a.Signal(syscall.SIGKILL)
		}
		err := c.up(ctx)
		c.check.Touched(from, time.Now().Add(aftermath))
		return err
	}},
	{"stop an agent for a while", 10, func(ctx context.Context, c *campaign, r *rand.Rand) error {
		long := upTo(r, 3000)
		if c.long && r.IntN(4) == 0 {
			long = 32*time.Second + upTo(r, 6000) // its lease ends meanwhile
		}
		a, ok := c.agent(r)
		if !ok {
			return nil
		}
		from := time.Now()
		a.Signal(syscall.SIGSTOP)
		c.check.Touched(from, from.Add(long+aftermath))
		c.frozen.Go(func() {
			wait(ctx, long)
			a.Signal(syscall.SIGCONT)
		})
		return nil
	}},
	{"kill the server, and delete the bus's store", 4, func(ctx context.Context, c *campaign, _ *rand.Rand) error {
		c.down()
		if err := os.RemoveAll(filepath.Join(c.dir, "bus")); err != nil {
			return err
		}
		c.busLost()
		return c.up(ctx)
	}},
}

// agent draws one of the living agents.
func (c *campaign) agent(r *rand.Rand) (program.Process, bool) {
	all := program.Agents(c.exe)
	if len(all) == 0 {
		return program.Process{}, false
	}
	return all[r.IntN(len(all))], true
}

func upTo(r *rand.Rand, ms int) time.Duration { return time.Duration(r.IntN(ms)) * time.Millisecond }

// fill makes the disk full for a while; the server may be killed meanwhile.
func fill(ctx context.Context, c *campaign, r *rand.Rand) error {
	c.check.DiskFull()
	name := filepath.Join(c.dir, "ballast")
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("ballast: %w", err)
	}
	chunk := make([]byte, 1<<20)
	for ; len(chunk) > 0; chunk = chunk[:len(chunk)/2] {
		for err = nil; err == nil; {
			_, err = f.Write(chunk)
		}
	}
	f.Close()
	wait(ctx, 500*time.Millisecond+upTo(r, 2500))
	killed := r.IntN(3) == 0
	if killed {
		c.down()
	}
	if err := os.Remove(name); err != nil {
		return err
	}
	if killed {
		return c.up(ctx)
	}
	return nil
}
