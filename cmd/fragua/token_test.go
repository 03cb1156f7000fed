package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestTokensGoToTheirOwnServerAlone(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	data := t.TempDir()
	lock, err := lockDir(data, asServer)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address := l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	for name, text := range map[string]string{"address": address, "owner.token": "the-owner"} {
		if err := os.WriteFile(filepath.Join(data, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for server, want := range map[string]string{
		"http://" + address: "the-owner", "http://" + address + "/": "the-owner", "http://localhost:" + port: "the-owner",
		"http://ci.example.com": "", "http://ci.example.com:" + port: "", "http://127.0.0.1:1": "", "http://127.0.0.1": "", "::": "",
	} {
		if got := findToken(server, data); got != want {
			t.Errorf("%s is told %q, want %q", server, got, want)
		}
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if got := findToken("http://"+address, data); got != "" {
		t.Errorf("who took the address of a server that is gone is told %q", got)
	}
	if err := keepToken("http://ci.example.com", "", "of-login"); err != nil {
		t.Fatal(err)
	}
	if got := findToken("http://ci.example.com", data); got != "of-login" {
		t.Errorf("a server of fragua login is told %q", got)
	}
}
