package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestAFolderThatIsGoneIsNoticed has a data folder be deleted, and another one be made in its place.
func TestAFolderThatIsGoneIsNoticed(t *testing.T) {
	for name, anew := range map[string]bool{"deleted": false, "made anew": true} {
		dir := filepath.Join(t.TempDir(), "data")
		synctest.Test(t, func(t *testing.T) {
			l, err := lockDir(dir, asServer)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			gone := l.watch(t.Context(), dir)
			time.Sleep(10 * goneLook)
			synctest.Wait()
			if len(gone) > 0 {
				t.Fatalf("%s: it is there: %v", name, <-gone)
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if anew {
				other, err := lockDir(dir, asServer)
				if err != nil {
					t.Fatal(err)
				}
				defer other.Close()
			}
			if err := <-gone; !errors.Is(err, errGone) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}
