package pipelinefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"fragua.dev/fragua/contract/spec"
)

// Names are what a pipeline file is called, in the order they are looked for.
var Names = []string{"fragua.yaml", ".fragua.yaml"}

// Find returns the path of the pipeline file in dir. Its error, when there is
// none, is fs.ErrNotExist.
func Find(dir string) (string, error) {
	for _, name := range Names {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err == nil && info.Mode().IsRegular() {
			return path, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("no %s in %s: %w", strings.Join(Names, " or "), dir, fs.ErrNotExist)
}

// Load reads the pipeline file at path. Its error is an *Error when the file was
// read and is not a pipeline.
func Load(path string) (spec.Pipeline, error) {
	f, err := os.Open(path)
	if err != nil {
		return spec.Pipeline{}, err
	}
	defer f.Close()
	return Read(path, f)
}

// Read is Load for what has been opened already; name is what errors call it, and
// one that ends in .json says that it is JSON.
func Read(name string, r io.Reader) (spec.Pipeline, error) {
	src, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return spec.Pipeline{}, fmt.Errorf("%s: %w", name, err)
	}
	return Parse(name, src)
}

// Parse returns the pipeline that src describes, or an *Error with everything
// that is wrong with it.
func Parse(name string, src []byte) (spec.Pipeline, error) {
	fail := func(faults ...Fault) (spec.Pipeline, error) {
		e := &Error{File: name, Faults: faults, src: src}
		e.sort()
		return spec.Pipeline{}, e
	}
	if len(src) > MaxBytes {
		return fail(Fault{Line: 1, Column: 1, Message: fmt.Sprintf("the file is larger than %d bytes", MaxBytes)})
	}
	src = bytes.TrimPrefix(src, []byte("\xef\xbb\xbf"))
	if at := garbage(src); at.line > 0 {
		return fail(Fault{Line: at.line, Column: at.column, Message: "this is not UTF-8 text"})
	}
	read := readYAML
	if strings.EqualFold(filepath.Ext(name), ".json") {
		read = readJSON
	}
	root, err := read(src)
	if err != nil {
		s := stop{pos{1, 1}, err.Error()}
		errors.As(err, &s)
		return fail(Fault{Line: s.at.line, Column: s.at.column, Message: s.message})
	}
	d := &decoder{places: map[string]place{}, doubt: map[string]bool{}}
	p := d.pipeline(root)
	d.judge(p, root.pos)
	if len(d.faults) > 0 {
		return fail(d.faults...)
	}
	return p, nil
}

// garbage returns the place of the first byte that is no text, or the zero pos.
func garbage(src []byte) pos {
	line, column := 1, 1
	for i := 0; i < len(src); {
		r, n := utf8.DecodeRune(src[i:])
		if r == utf8.RuneError && n == 1 || r == 0 {
			return pos{line, column}
		}
		if column++; r == '\n' {
			line, column = line+1, 1
		}
		i += n
	}
	return pos{}
}
