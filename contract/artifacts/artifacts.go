// Package artifacts is what other rooms ask of the artifact room at once: to keep
// what a job leaves behind, and to hand out what a job starts from. Secrets are
// asked for in the same way.
package artifacts

import (
	"context"
	"errors"
	"io"

	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

// Errors, for errors.Is.
var (
	ErrNotFound = errors.New("no such artifact")
	ErrConflict = errors.New("another content is stored under this name and version: give another version, or leave it out of the pipeline file, so that each run has its own")
	// ErrAway says that the artifact room was not there, or went away: asking again
	// may help.
	ErrAway = errors.New("the artifact service is away")
)

// A Keeper stores and hands out artifacts of a tenant.
type Keeper interface {
	// Keep stores what r yields under ref. The same content again is not an error.
	Keep(ctx context.Context, t ident.Tenant, ref spec.ArtifactRef, r io.Reader) error
	// Open returns the content; the caller closes it.
	Open(ctx context.Context, t ident.Tenant, ref spec.ArtifactRef) (io.ReadCloser, error)
}

// ErrNoSecret is wrapped by what Reveal returns for a secret that is not set.
var ErrNoSecret = errors.New("no such secret")

// A Vault reveals secrets to the room that hands them to a step.
type Vault interface {
	Reveal(ctx context.Context, t ident.Tenant, names []string) (map[string]string, error)
}
