package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	maxTold   = 10 // lines about what is left out
	maxNested = 16 // git repositories within each other
)

// luggage is what belongs to a folder that travels. Names are relative to it.
type luggage struct {
	dir   string
	names []string // of files
	left  []string // what stays at home, and why
	repos []string // git repositories within the folder's own
	homes map[string]bool
}

// files returns what belongs to a folder: what git does not ignore, or everything;
// and what is left out of it, such as the data folders of Fragua, which hold keys.
func files(dir string) (names, left []string, err error) {
	if isHome(dir) {
		return nil, nil, errors.New("it is the data folder of a Fragua server")
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, nil, err
	}
	l := &luggage{dir: dir, homes: map[string]bool{".": false}}
	if listed, err := l.listed("."); err == nil {
		l.add(listed, 0)
	} else if l.names, err = walk(dir, l.atHome); err != nil {
		return nil, nil, err
	}
	slices.Sort(l.names)
	l.names = slices.Compact(l.names)
	if len(l.names) > maxFiles {
		return nil, nil, fmt.Errorf("there are more than %d", maxFiles)
	}
	for _, name := range l.special() {
		l.left = append(l.left, name+", which is neither a file nor a folder")
	}
	return l.names, l.left, nil
}

func tellLeft(out io.Writer, left []string) {
	for i, what := range left {
		if i == maxTold {
			fmt.Fprintf(out, "left out: %d more\n", len(left)-i)
			return
		}
		fmt.Fprintf(out, "left out: %s\n", printable(what))
	}
}

// git returns a git command for the folder's repository, or for one within. That one is
// named, so that a folder without any is not taken for a part of the one above, and what
// its settings would have git run is not run: nobody may ever have worked in it.
func (l *luggage) git(repo string, args ...string) *exec.Cmd {
	dir := filepath.Join(l.dir, repo)
	own := []string{"-C", dir}
	if repo != "." {
		own = append(own, "-c", "core.fsmonitor=false", "--git-dir="+filepath.Join(dir, ".git"), "--work-tree="+dir)
	}
	cmd := exec.Command("git", append(own, args...)...)
	if repo != "." { // a hook that calls fragua has the index of the one above
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GIT_INDEX_FILE=") })
	}
	return cmd
}

// listed returns what git lists of a repository: files that it does not ignore, and
// the folders of other repositories.
func (l *luggage) listed(repo string) (names []string, err error) {
	out, err := l.git(repo, "ls-files", "-z", "-co", "--exclude-standard").Output()
	for name := range strings.SplitSeq(string(out), "\x00") {
		if name != "" {
			names = append(names, filepath.Join(repo, filepath.FromSlash(name)))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

// add takes along what git has listed of a repository, and of those within it.
func (l *luggage) add(listed []string, depth int) {
	for _, name := range listed {
		if len(l.names) > maxFiles {
			return
		}
		if l.belowHome(name) {
			continue
		}
		if info, err := os.Lstat(filepath.Join(l.dir, name)); err != nil || !info.IsDir() {
			l.names = append(l.names, name)
			continue
		}
		below := func(other string) bool { return strings.HasPrefix(other, name+string(filepath.Separator)) }
		if !slices.ContainsFunc(listed, below) && !l.atHome(name) { // else it is a folder where a file was
			l.nested(name, depth+1)
		}
	}
}

// nested takes along a submodule, or a repository that merely lies there.
func (l *luggage) nested(repo string, depth int) {
	if depth > maxNested {
		l.left = append(l.left, repo+", a git repository too deep within others")
		return
	}
	listed, err := l.listed(repo)
	if err != nil {
		l.left = append(l.left, repo+", a git repository that is not checked out, or of which git tells nothing")
		return
	}
	l.repos = append(l.repos, repo)
	l.add(listed, depth)
}

// belowHome says whether a file lies in a data folder.
func (l *luggage) belowHome(name string) bool {
	for folder := filepath.Dir(name); folder != "."; folder = filepath.Dir(folder) {
		if l.atHome(folder) {
			return true
		}
	}
	return false
}

// atHome says whether a folder is a data folder, which is left out.
func (l *luggage) atHome(folder string) bool {
	known, ok := l.homes[folder]
	if !ok {
		known = isHome(filepath.Join(l.dir, folder))
		if l.homes[folder] = known; known {
			l.left = append(l.left, folder+", the data folder of a Fragua server")
		}
	}
	return known
}

// special returns the pipes, sockets and devices that lie beside files, unless git
// ignores them: they have no content that could travel, and git lists none of them.
func (l *luggage) special() (found []string) {
	folders := map[string]bool{".": true}
	for _, name := range l.names {
		folders[filepath.Dir(name)] = true
	}
	byRepo := map[string][]string{}
	for _, folder := range slices.Sorted(maps.Keys(folders)) {
		entries, _ := os.ReadDir(filepath.Join(l.dir, folder)) // gone meanwhile: nothing to tell
		for _, e := range entries {
			if t := e.Type(); !t.IsRegular() && !t.IsDir() && t&fs.ModeSymlink == 0 {
				repo := l.repoOf(folder)
				byRepo[repo] = append(byRepo[repo], filepath.Join(folder, e.Name()))
			}
		}
	}
	for _, repo := range slices.Sorted(maps.Keys(byRepo)) {
		found = append(found, l.unignored(repo, byRepo[repo])...)
	}
	return found
}

// repoOf returns the innermost repository that a folder belongs to.
func (l *luggage) repoOf(folder string) string {
	for ; folder != "."; folder = filepath.Dir(folder) {
		if slices.Contains(l.repos, folder) {
			return folder
		}
	}
	return folder
}

// unignored returns those of a repository's names that git does not ignore.
func (l *luggage) unignored(repo string, names []string) []string {
	var ask strings.Builder
	for _, name := range names {
		ask.WriteString(strings.TrimPrefix(name, repo+string(filepath.Separator)) + "\x00")
	}
	cmd := l.git(repo, "check-ignore", "-z", "--stdin")
	cmd.Stdin = strings.NewReader(ask.String())
	out, _ := cmd.Output() // without git, or outside a repository, nothing is ignored
	ignored := map[string]bool{}
	for name := range strings.SplitSeq(string(out), "\x00") {
		ignored[filepath.Join(repo, name)] = true
	}
	return slices.DeleteFunc(names, func(name string) bool { return ignored[name] })
}

// isHome says whether a folder is one that fragua serve keeps its data in.
func isHome(folder string) bool {
	for _, name := range []string{"owner.token", "lock"} {
		if _, err := os.Lstat(filepath.Join(folder, name)); err != nil {
			return false
		}
	}
	return true
}

// walk returns all files of a folder but git's own, and those of folders to skip.
func walk(dir string, skip func(folder string) bool) (names []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" || skip(rel) {
				return fs.SkipDir
			}
			return nil
		}
		if names = append(names, rel); len(names) > maxFiles {
			return fmt.Errorf("there are more than %d", maxFiles)
		}
		return nil
	})
	return names, err
}
