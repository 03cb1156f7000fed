package main

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"fragua.dev/fragua/execution/agent"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestMain lets this binary be the agent that the house of a test starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "agent" {
		os.Exit(agent.Main(os.Args[2:], slog.New(slog.DiscardHandler)))
	}
	flag.Parse()
	os.Exit(m.Run())
}

// TestGoldenOpenAPI holds what the program says of its API against what is in git: a
// changed API is a visible difference. Its version is left out.
func TestGoldenOpenAPI(t *testing.T) {
	was := version
	version = "0"
	t.Cleanup(func() { version = was })
	h, err := openHouse(t.Context(), Settings{Data: t.TempDir(), Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	resp, err := http.Get(h.URL() + "/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	file := filepath.Join("..", "..", "contract", "openapi", "openapi.yaml")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil || string(got) != string(want) {
		t.Errorf("%s is not what the program says of its API (%v): make generate, and look at the difference", file, err)
	}
}
