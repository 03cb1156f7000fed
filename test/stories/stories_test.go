// Package stories tells what people do on the command line, as scripts that the
// real program has to follow: one file, one story, with a home of its own.
package stories

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"fragua.dev/fragua/test/program"
)

const (
	buildTime = 5 * time.Minute
	readyTime = 30 * time.Second
	awaitTime = 30 * time.Second
	awaitEach = 50 * time.Millisecond
	stopTime  = 20 * time.Second
)

var exe string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "stories-")
	if err == nil {
		defer os.RemoveAll(dir)
		ctx, cancel := context.WithTimeout(context.Background(), buildTime)
		defer cancel()
		exe, err = program.Build(ctx, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// houses are the ways in which a story's server is dealt out over processes: rooms
// do not know whether they are neighbours, and nobody else should.
var houses = map[string][][]string{
	"joined": nil,
	"split":  {{"orchestration", "scheduling", "security"}, {"worker", "execution"}, {"artifact", "telemetry", "console"}},
}

// see opens each folder of the program's sources, so that go test does not take the
// result of another program from its cache. It notes what tests open, not TestMain.
func see(root string) error {
	return filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir
		}
		return err
	})
}

func TestStories(t *testing.T) {
	if err := see("../.."); err != nil {
		t.Fatal(err)
	}
	for name, parts := range houses {
		t.Run(name, func(t *testing.T) { tell(t, parts) })
	}
}

func tell(t *testing.T, parts [][]string) {
	testscript.Run(t, testscript.Params{
		Dir: ".",
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			e.Setenv("HOME", home)
			e.Setenv("XDG_STATE_HOME", program.StateHome(filepath.Join(e.WorkDir, "data")))
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
			e.Setenv("PATH", filepath.Dir(exe)+string(os.PathListSeparator)+os.Getenv("PATH"))
			return os.MkdirAll(home, 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"rc": rc, "await": await, "keep": keep,
			"serve": func(ts *testscript.TestScript, neg bool, args []string) { serve(ts, neg, args, parts) },
		},
	})
}

// rc runs a command that must end with a code: rc 2 fragua foo.
func rc(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: rc CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := ended(ts, ts.Exec(args[1], args[2:]...)); got != want {
		ts.Fatalf("it ended with %d, want %d", got, want)
	}
}

func ended(ts *testscript.TestScript, err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	ts.Check(err)
	return 0
}

// await runs a command until its output matches: await SUCCEEDED fragua job list.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await REGEXP COMMAND…")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	tick := time.NewTicker(awaitEach)
	defer tick.Stop()
	for deadline := time.Now().Add(awaitTime); ; <-tick.C {
		code := ended(ts, ts.Exec(args[1], args[2:]...))
		if code == 0 && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no %q within %v", args[0], awaitTime)
		}
	}
}

// keep puts what a group of a regular expression finds in the last output into a
// variable: keep JOB (job_\w+).
func keep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: keep NAME REGEXP")
	}
	found := regexp.MustCompile("(?m)" + args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) < 2 {
		ts.Fatalf("nothing matches %q", args[1])
	}
	ts.Setenv(args[0], found[1])
}

// serve starts a server with a data folder and a port of its own, which later
// commands find, and ends it with the story. Flags go to the process with
// orchestration.
func serve(ts *testscript.TestScript, neg bool, args []string, parts [][]string) {
	if neg {
		ts.Fatalf("usage: serve [FLAG…]")
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyTime)
	defer cancel()
	data := ts.MkAbs("data")
	log, err := os.Create(ts.MkAbs("server.log"))
	ts.Check(err)
	ts.Defer(func() { log.Close() })
	var front *program.Server
	for i, services := range parts {
		var flags []string
		if i == 0 {
			flags = args
		}
		s, err := program.LaunchPart(exe, data, log, services, flags...)
		ts.Check(err)
		end(ts, s)
		if i == 0 {
			front = s
		}
	}
	if front == nil {
		front, err = program.Launch(exe, data, log, args...)
		ts.Check(err)
		end(ts, front)
	}
	ts.Check(front.Await(ctx, data))
	ts.Setenv("FRAGUA_DATA", data)
	ts.Setenv("URL", front.URL)
}

// end has a server ended with the story.
func end(ts *testscript.TestScript, s *program.Server) {
	ts.Defer(func() {
		if err := s.Stop(stopTime); err != nil {
			ts.Logf("the server: %v", err)
		}
	})
}
