package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fragua.dev/fragua/contract/agentapi"
)

// TestAProgramThatIsNotThereIsNamed says which, in short, and never a secret.
func TestAProgramThatIsNotThereIsNamed(t *testing.T) {
	const secret = "hunter22-hunter22"
	long := strings.Repeat("x", nameSize-8)
	for name, want := range map[string]string{
		"no-such-program":         "there is no program no-such-program in PATH",
		"make test":               `there is no program "make test" in PATH`,
		"a\x1b[2J\n\u202eb":       `there is no program "a\x1b[2J\n\u202eb" in PATH`,
		"":                        `there is no program "" in PATH`,
		long + "123456789":        "there is no program " + long + "12345678… in PATH",
		"get-" + secret:           "there is no program get-*** in PATH",
		long + secret + secret:    "there is no program " + long + "****** in PATH",
		"/no/" + secret + "/tool": "no such file or directory",
		"./" + secret:             "/***: exec format error",
	} {
		j := &job{order: agentapi.Order{Dir: t.TempDir()}, secrets: map[string]bool{}}
		if err := os.Mkdir(j.workspace(), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(j.workspace(), secret), []byte{0, 1, 2}, 0o700); err != nil {
			t.Fatal(err)
		}
		e := start(j, agentapi.ExecRequest{Exec: "x", Command: []string{name}, Secrets: map[string]string{"S": secret}})
		<-e.done
		if x := e.view(); x.Code != agentapi.CodeStart || !strings.HasPrefix(x.Message, "the program cannot be started: ") || !strings.HasSuffix(x.Message, want) {
			t.Errorf("%q: %s: %s", name, x.Code, x.Message)
		}
		log, err := fetch(e.spool, 1<<16)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(log), want) || strings.Contains(string(log), secret[:4]) {
			t.Errorf("%q: the log is %q", name, log)
		}
	}
}
