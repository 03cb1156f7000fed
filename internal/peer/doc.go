// Package peer is how the processes of one house speak to each other: HTTP over
// mutual TLS on loopback, from room to room.
//
// They find each other in the data folder that they share. Each room's address
// stands in rooms/NAME.address, and its certificate, which the security room renews,
// in security/rooms/NAME.pem. Whoever asks is known by the certificate alone; a
// process with several rooms has one listener, and shows the certificate of the room
// that was asked for (by SNI).
//
// A question may be asked again: while its room is away it is, until the caller's
// deadline.
package peer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrAway says that a room's process was not there, or went away before it answered.
var ErrAway = errors.New("it is away: does its process run?")

// Prefix begins the paths of what rooms ask each other; all others are the API's.
const Prefix = "/house/"

// MaxBody bounds a question and an answer; what is larger is streamed.
const MaxBody = 32 << 20

const maxFile = 64 << 10

// Dir is the data folder that the processes of a house share.
type Dir string

func (d Dir) address(room string) string {
	return filepath.Join(string(d), "rooms", room+".address")
}

func (d Dir) certificate(room string) string {
	return filepath.Join(string(d), "security", "rooms", room+".pem")
}

// Address returns HOST:PORT where a room is to be found.
func (d Dir) Address(room string) (string, error) { return readAddress(d.address(room)) }

func readAddress(file string) (string, error) {
	b, err := read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w (there is no %s)", ErrAway, file)
	}
	return strings.TrimSpace(string(b)), err
}

// bus is where the process that carries the bus says where that is.
func (d Dir) bus() string { return filepath.Join(string(d), "bus.address") }

// Bus returns HOST:PORT of the bus.
func (d Dir) Bus() (string, error) { return readAddress(d.bus()) }

// PublishBus says where the bus is.
func (d Dir) PublishBus(address string) error { return write(d.bus(), []byte(address+"\n")) }

// WithdrawBus takes back what PublishBus said.
func (d Dir) WithdrawBus() { os.Remove(d.bus()) }

// Publish says where rooms are to be found.
func (d Dir) Publish(address string, rooms ...string) error {
	for _, r := range rooms {
		if err := write(d.address(r), []byte(address+"\n")); err != nil {
			return fmt.Errorf("peer: %w", err)
		}
	}
	return nil
}

// Withdraw takes back what Publish said.
func (d Dir) Withdraw(rooms ...string) {
	for _, r := range rooms {
		os.Remove(d.address(r)) // a stale one leads nowhere, and is seen through
	}
}

// write puts data into file so that whoever reads it sees all of it or nothing.
func write(file string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
