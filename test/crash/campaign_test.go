package crash

import (
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"fragua.dev/fragua/test/program"
)

// built is the program, compiled once for all tests of this package.
var built = sync.OnceValues(func() (string, error) { return program.Build(home.ctx, home.dir) })

// setting returns a number from the environment.
func setting(t *testing.T, name string, otherwise uint64) (n uint64, given bool) {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n, true
}

// TestCampaign does KILLS faults (12 unless given) to a server under load. SEED
// repeats a campaign, as far as the machine lets it.
func TestCampaign(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes most of a minute")
	}
	exe, err := built()
	if err != nil {
		t.Fatal(err)
	}
	n, long := setting(t, "KILLS", 12)
	seed, _ := setting(t, "SEED", uint64(time.Now().UnixNano()%1e9))
	c := newCampaign(t, seed, exe, "")
	c.long = long
	c.run(t.Context(), int(n), troubles)
}

// TestCampaignFullDisk does the same to a server whose disk is full again and again.
func TestCampaignFullDisk(t *testing.T) {
	n, long := setting(t, "KILLS", 0)
	if !long {
		t.Skip("only in the long run: make crash")
	}
	dir := t.TempDir()
	if err := syscall.Mount("fragua-crash", dir, "tmpfs", 0, "size=256m"); err != nil {
		t.Skipf("a small disk of its own cannot be made, which takes root: %v", err)
	}
	t.Cleanup(func() { // runs after the campaign has ended its processes
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	exe, err := built()
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := setting(t, "SEED", uint64(time.Now().UnixNano()%1e9))
	c := newCampaign(t, seed, exe, dir)
	c.run(t.Context(), int(min(n, 40)), append([]trouble{{"fill the disk", 60, fill}}, troubles[:2]...))
}
