package scratch

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMountsAreNotEntered binds a folder of the host into one that is removed, under
// names that a mount table escapes, and one upon another.
func TestMountsAreNotEntered(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	host, dir := t.TempDir(), filepath.Join(t.TempDir(), "slot")
	kept := filepath.Join(host, "sub", "file")
	at := filepath.Join(dir, "workspace", "a mount\\040\tof mine")
	for _, d := range []string{filepath.Dir(kept), at} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(kept, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := unix.Mount(host, at, "", unix.MS_BIND, ""); err != nil {
			t.Skipf("mounting is not allowed here: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) }) // the test has failed if it is there
	}
	if err := Remove(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("what lay behind the mount: %v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder: %v", err)
	}
}

func TestWithin(t *testing.T) {
	table := []byte(`22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 254:0 /x /data/slot-1/workspace/m rw - ext4 /dev/vda rw
31 22 0:5 / /data/slot-1 rw shared:1 - tmpfs none rw
32 22 0:5 / /data/slot-10/a rw - tmpfs none rw
33 22 0:5 / /data/slot-1/a\040b\134 rw - tmpfs none rw
34
`)
	want := []string{"/data/slot-1/workspace/m", "/data/slot-1", `/data/slot-1/a b\`}
	if got := within(table, "/data/slot-1"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestLockedFoldersAreRemoved runs as an ordinary user, whom modes bind.
func TestLockedFoldersAreRemoved(t *testing.T) {
	if dir := os.Getenv("REMOVE_THIS"); dir != "" {
		if err := os.MkdirAll(filepath.Join(dir, "a/b/c/d"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/etc", filepath.Join(dir, "a/b/c/link")); err != nil {
			t.Fatal(err)
		}
		for _, d := range []string{"a/b/c", "a/b", "a"} {
			if err := os.Chmod(filepath.Join(dir, d), 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := Remove(dir); err != nil {
			t.Fatal(err)
		}
		os.Exit(0)
	}
	dir, err := os.MkdirTemp("/tmp", "locked-*") // TMPDIR may lie where an ordinary user cannot go: that of a job does
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	inner := filepath.Join(dir, "slot")
	if err := os.Mkdir(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "test")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, self, 0o755); err != nil { // the test's own binary may lie where others cannot read
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run", "^TestLockedFoldersAreRemoved$")
	cmd.Env = append(os.Environ(), "REMOVE_THIS="+inner)
	if os.Geteuid() == 0 {
		const nobody = 65534
		for _, d := range []string{dir, inner} {
			if err := os.Chown(d, nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		cmd.Dir = dir
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := os.Stat(inner); !os.IsNotExist(err) {
		t.Errorf("the folder: %v", err)
	}
}
