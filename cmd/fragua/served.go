package main

import (
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// A server notes where it keeps its data, so that the client commands of the same
// user on this machine find the owner's token by the server's address alone.

// servedFile is the note of a server on a port of this machine.
func servedFile(port string) (string, error) {
	state, err := stateDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(state, "served", port), nil
}

// note writes where the server at address, HOST:PORT, keeps its data. The function
// it returns takes the note back.
func note(address, data string) (undo func(), err error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	file, err := servedFile(port)
	if err != nil {
		return nil, err
	}
	if data, err = filepath.Abs(data); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, []byte(data+"\n"), 0o600); err != nil {
		return nil, err
	}
	return func() {
		b, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(b)) == data { // if not, another server has the port by now
			os.Remove(file)
		}
	}, nil
}

// noted returns the data folder of the server at a URL, if it is one on this
// machine that left a note. Whether it still has that address is for the caller to see.
func noted(server string) (string, error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", err
	}
	if !onThisMachine(server) {
		return "", errors.New("not on this machine")
	}
	port := u.Port()
	if port == "" || strings.ContainsAny(port, "/.") {
		return "", errors.New("no port")
	}
	file, err := servedFile(port)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

// onThisMachine says whether a URL is of a server on this machine.
func onThisMachine(server string) bool {
	u, err := url.Parse(server)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// keepToken keeps a token for later calls of the server at a URL, or of whoever has a data
// folder.
func keepToken(server, data, token string) error {
	at, err := whose(server, data)
	if err != nil {
		return err
	}
	file, err := tokenFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(at+"\n"+token+"\n"), 0o600)
}

// keptToken returns the token that was kept for the server at a URL, or for a data folder.
func keptToken(server, data string) (string, error) {
	at, err := whose(server, data)
	if err != nil {
		return "", err
	}
	file, err := tokenFile()
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if f := strings.Fields(string(b)); len(f) == 2 && f[0] == at {
		return f[1], nil
	}
	return "", errors.New("it is for another server")
}

// whose is what a token is kept for: a folder's server may have any port.
func whose(server, data string) (string, error) {
	if server != "" {
		return origin(server)
	}
	abs, err := filepath.Abs(data)
	return (&url.URL{Scheme: "file", Path: abs}).String(), err
}

// origin is the part of a URL that says which server it is.
func origin(server string) (string, error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", err
	}
	return u.Scheme + "://" + u.Host, nil
}
