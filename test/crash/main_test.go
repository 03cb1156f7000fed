package crash

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// home is where the program is built, for as long as the tests run.
var home struct {
	ctx context.Context
	dir string
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "fragua-built-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	home.ctx, home.dir = context.Background(), dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}
