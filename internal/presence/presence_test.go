package presence

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestHowLongNobodyWasThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "alive")
	synctest.Test(t, func(t *testing.T) {
		open := func() (*Presence, time.Duration) {
			p, err := Open(file, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			return p, p.Away
		}
		p, away := open()
		if away != 0 {
			t.Errorf("nobody ever was there: %v", away)
		}
		time.Sleep(time.Hour + each/2) // it lives
		p.Close()
		time.Sleep(20 * time.Second)
		p, away = open()
		if away != 20*time.Second {
			t.Errorf("after 20 s away: %v", away)
		}
		time.Sleep(time.Minute + each/2)
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		killed := info.ModTime()
		p.Close()
		if ago := time.Since(killed); ago > each {
			t.Errorf("one that is killed was last seen %v ago", ago)
		}
	})
}
