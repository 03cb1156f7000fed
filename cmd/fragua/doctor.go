package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/worker/process"
)

// finding is one thing that doctor looked at.
type finding struct {
	What   string `json:"what"`
	State  string `json:"state"`
	Advice string `json:"advice,omitempty"`
}

func doctorCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "doctor", Short: "Say what this machine has and lacks, and what to do", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		data, _ := cmd.Flags().GetString("data")
		if data == "" {
			var err error
			if data, err = stateDir(); err != nil {
				return err
			}
		}
		out := cmd.OutOrStdout()
		found := examine(data)
		if format, _ := cmd.Flags().GetString("output"); format != "table" {
			if err := show(cmd, map[string]any{"items": found}, nil); err != nil {
				return err
			}
		} else {
			for _, f := range found {
				fmt.Fprintf(out, "%-7s %s\n", f.State, f.What)
				if f.Advice != "" {
					fmt.Fprintf(out, "        %s\n", f.Advice)
				}
			}
		}
		if slices.ContainsFunc(found, func(f finding) bool { return f.State == "MISSING" }) {
			return exitError{exitFailed, errTold}
		}
		return nil
	}}
	outputFlag(cmd)
	return cmd
}

func examine(data string) []finding {
	var out []finding
	add := func(ok bool, what, lacking, advice string) {
		if ok {
			out = append(out, finding{what, "ok", ""})
		} else {
			out = append(out, finding{what, lacking, advice})
		}
	}
	either := func(ok bool, good, bad string) string {
		if ok {
			return good
		}
		return bad
	}
	err := os.MkdirAll(data, 0o700)
	var probe *os.File
	if err == nil {
		if probe, err = os.CreateTemp(data, "doctor-*"); err == nil {
			probe.Close()
			os.Remove(probe.Name())
		}
	}
	add(err == nil, "data folder "+data+either(err == nil, " can be written", " cannot be written"), "MISSING", "give another one with --data, or change its owner")
	var fs syscall.Statfs_t
	if syscall.Statfs(data, &fs) == nil {
		free := int64(fs.Bavail) * fs.Bsize >> 20
		add(free > 1024, fmt.Sprintf("%d MiB are free for data", free), "LOW", "logs and artifacts need room: free some, or use another folder")
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		add(limit.Max >= 4096, fmt.Sprintf("%d files may be open", limit.Max), "LOW", "raise the limit: ulimit -n 65536")
	}
	l, err := net.Listen("tcp", "127.0.0.1:7070")
	if err == nil {
		l.Close()
	}
	add(err == nil, "port 7070 of this machine"+either(err == nil, " is free", ""), "TAKEN", "a server may run already; choose another --listen, or port 0")
	_, err = exec.LookPath("git")
	add(err == nil, "git, to see which files of a folder belong to a run", "NONE", "install git; without it all files of the folder are taken")
	add(cgroup2("/sys/fs/cgroup"), "cgroup v2", "NONE", "not used yet: what a job leaves is ended by process group and subreaper")
	_, err = os.Stat("/var/run/docker.sock")
	add(err == nil, "Docker's socket", "NONE", "not used yet: this version has the process provider only")
	home, _ := os.UserHomeDir()
	_, err = os.Stat(filepath.Join(home, ".kube", "config"))
	add(err == nil, "a Kubernetes configuration", "NONE", "not used yet: this version has the process provider only")
	return append(out, finding{process.Containment(), "note", ""})
}

// cgroup2 says whether cgroup v2 is there: at the root, or, where v1 has the
// controllers, beside them.
func cgroup2(root string) bool {
	for _, dir := range []string{root, filepath.Join(root, "unified")} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.controllers")); err == nil {
			return true
		}
	}
	return false
}
