package httpapi

import (
	"bytes"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// Listener has what net/http answers by itself be a problem like every other: to a
// request that it cannot read it says so in plain text, before any handler, and to some
// with a status that blames the server.
func Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

// Accept waits for the next connection.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, is := c.(*net.TCPConn); is {
		return conn{tcp}, err
	}
	return c, err
}

// A conn keeps all that net/http makes use of in a TCP connection.
type conn struct{ *net.TCPConn }

// ownHeaders are those of net/http's own answers, and of no handler's: they lack a date.
const ownHeaders = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"

// Write writes p, or a problem in place of an answer that is net/http's own.
func (c conn) Write(p []byte) (int, error) {
	own := ownAnswer(p)
	if own == nil {
		return c.TCPConn.Write(p)
	}
	var body bytes.Buffer
	_ = encode(&body, own) // texts and numbers: it cannot fail
	answer := "HTTP/1.1 " + strconv.Itoa(own.Status) + " " + own.Title + "\r\nContent-Type: " + mediaProblem +
		"\r\nContent-Length: " + strconv.Itoa(body.Len()) + "\r\nConnection: close\r\n\r\n" + body.String()
	if _, err := c.TCPConn.Write([]byte(answer)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// ownAnswer returns the problem that an answer of net/http's own tells of; nil for any
// other.
func ownAnswer(p []byte) *Problem {
	const protocol = "HTTP/1.1 "
	if !bytes.HasPrefix(p, []byte(protocol+"4")) && !bytes.HasPrefix(p, []byte(protocol+"5")) {
		return nil
	}
	if bytes.HasPrefix(p, []byte(protocol+"417 ")) { // no handler's: they do not look at expectations
		return problem(http.StatusExpectationFailed, "the expectation is not known: want 100-continue, or none")
	}
	line, _, _ := bytes.Cut(p, []byte("\r\n"))
	text, own := bytes.CutPrefix(p[len(line):], []byte(ownHeaders))
	if !own {
		return nil
	}
	status, _ := strconv.Atoi(string(line[len(protocol):min(len(line), len(protocol)+3)])) // net/http writes three digits
	_, detail, more := strings.Cut(string(text), ": ")
	if !more {
		detail = "the request cannot be read"
	}
	switch status {
	case http.StatusNotImplemented:
		status, detail = http.StatusBadRequest, "the transfer encoding is not known: want chunked, or a Content-Length"
	case http.StatusHTTPVersionNotSupported:
		status, detail = http.StatusBadRequest, "the version of HTTP is not known: want 1.1"
	case http.StatusRequestHeaderFieldsTooLarge:
		detail = "the headers are too large"
	}
	return problem(status, detail)
}
