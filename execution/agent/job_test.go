package agent

import (
	"crypto/ed25519"
	"log/slog"
	"os/exec"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"fragua.dev/fragua/contract/agentapi"
)

// TestLeaseWaitsForABossThatIsStopped has nobody call for a lease, because who would
// was stopped, or went on and did not.
func TestLeaseWaitsForABossThatIsStopped(t *testing.T) {
	boss := exec.Command("sleep", "300")
	if err := boss.Start(); err != nil {
		t.Fatal(err)
	}
	defer boss.Wait()
	defer boss.Process.Kill()
	tell := func(s syscall.Signal, want bool) {
		t.Helper()
		if err := boss.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(20 * time.Second); stopped(boss.Process.Pid) != want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("after %v it is not so that it is stopped: %v", s, want)
			}
		}
	}
	order := agentapi.Order{Dir: t.TempDir(), LeaseMS: 30_000, Cert: []byte{1}, Key: make([]byte, ed25519.PrivateKeySize)}
	for _, goesOn := range []bool{false, true} {
		tell(syscall.SIGSTOP, true)
		if goesOn {
			tell(syscall.SIGCONT, false)
		}
		synctest.Test(t, func(t *testing.T) {
			j, err := newJob(order, nil, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer j.timer.Stop()
			j.mu.Lock()
			j.boss = boss.Process.Pid
			j.mu.Unlock()
			time.Sleep(10*time.Minute + time.Second)
			synctest.Wait()
			select {
			case <-j.expired:
				if !goesOn {
					t.Error("the lease ran out while the boss was stopped")
				}
			default:
				if left := time.Until(j.expires); goesOn || left < 20*time.Second {
					t.Errorf("the lease has %v left, and the boss goes on: %v", left, goesOn)
				}
			}
		})
	}
}
