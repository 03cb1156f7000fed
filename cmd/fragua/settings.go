package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fragua.dev/fragua/execution/agent"
)

// applySettings fills the flags that were not given from the environment, and
// from the settings file: FRAGUA_ and the flag's name in capitals.
func applySettings(cmd *cobra.Command) error {
	file, err := cmd.Flags().GetString("config")
	if err != nil {
		return err
	}
	if file == "" {
		file = os.Getenv("FRAGUA_CONFIG")
	}
	values := map[string]any{}
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return usage(fmt.Errorf("settings: %w", err))
		}
		if err := yaml.Unmarshal(b, &values); err != nil {
			return usage(fmt.Errorf("settings: %s: %w", file, err))
		}
	}
	var errs []error
	known := settings(cmd.Root())
	for _, name := range slices.Sorted(maps.Keys(values)) {
		flag := strings.ReplaceAll(name, "_", "-")
		if !known[flag] {
			errs = append(errs, fmt.Errorf("%s: there is no setting %s; known are %s", file, printable(name), strings.Join(slices.Sorted(maps.Keys(known)), ", ")))
		} else if flag != name {
			if _, twice := values[flag]; twice {
				errs = append(errs, fmt.Errorf("%s: %s is given twice", file, flag))
			}
			values[flag] = values[name]
		}
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || !known[f.Name] {
			return
		}
		if name, v := fromEnv(f.Name); v != "" {
			if err := f.Value.Set(v); err != nil && !forListings(f, v) {
				errs = append(errs, fmt.Errorf("%s: %w", name, wanted(f, err)))
			}
		} else if v, ok := values[f.Name]; ok {
			if err := set(f.Value, v); err != nil && !forListings(f, v) {
				errs = append(errs, fmt.Errorf("%s: %s: %w", file, f.Name, wanted(f, err)))
			}
		}
	})
	if server, _ := cmd.Flags().GetString("server"); server != "" && !isURL(server) {
		errs = append(errs, errors.New("--server: want the URL of a server, such as "+defaultURL))
	}
	if err := errors.Join(errs...); err != nil {
		return usage(err)
	}
	return nil
}

// settings are the flags of all commands: one file serves them all, and each takes
// what it knows.
func settings(root *cobra.Command) map[string]bool {
	known := map[string]bool{}
	add := func(f *pflag.Flag) { known[f.Name] = f.Name != "config" && f.Name != "help" && f.Name != "version" }
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		cmd.LocalFlags().VisitAll(add)
		for _, c := range cmd.Commands() {
			if c.Name() != "completion" && c.Name() != "help" {
				walk(c)
			}
		}
	}
	walk(root)
	maps.DeleteFunc(known, func(_ string, ok bool) bool { return !ok })
	return known
}

// wanted says what a flag wants that was given something else.
func wanted(f *pflag.Flag, err error) error {
	switch f.Value.Type() {
	case "int", "int64":
		return errors.New("want a whole number")
	case "bool":
		return errors.New("want true or false")
	case "duration":
		return errors.New("want a time, such as 90s or 1h30m")
	}
	return err // our own words
}

// fromEnv returns what the environment says of a flag, and the variable's name.
func fromEnv(flag string) (name, value string) {
	if v := os.Getenv("FRAGUA_URL"); flag == "server" && v != "" {
		return "FRAGUA_URL", v
	}
	name = "FRAGUA_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
	if os.Getenv("FRAGUA_JOB_ID") != "" && agent.Tells(name) { // of the job that this command is a part of
		return name, ""
	}
	return name, os.Getenv(name)
}

// forListings says whether a setting is a form of listings, which a command that
// prints none, such as run, passes over.
func forListings(f *pflag.Flag, v any) bool {
	s, _ := v.(string)
	return f.Name == "output" && slices.Contains(formats, s)
}

// set gives a flag what a settings file says: a list, or one value.
func set(flag pflag.Value, v any) error {
	items, list := v.([]any)
	many, takes := flag.(pflag.SliceValue)
	if !list {
		if _, nested := v.(map[string]any); nested || v == nil {
			return errors.New("want a value")
		}
		return flag.Set(fmt.Sprint(v))
	}
	if !takes {
		return errors.New("want one value, not a list")
	}
	texts := make([]string, len(items))
	for i, x := range items {
		texts[i] = fmt.Sprint(x)
	}
	return many.Replace(texts)
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// isAddress says whether a server can listen at s, as far as that can be read.
func isAddress(s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// stateDir is where fragua run keeps its platform, unless --data says otherwise.
func stateDir() (string, error) {
	if d := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "fragua"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no home folder: %w; give --data", err)
	}
	return filepath.Join(home, ".local", "state", "fragua"), nil
}

// tokenFile is where fragua login keeps a token.
func tokenFile() (string, error) {
	d, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no configuration folder: %w", err)
	}
	return filepath.Join(d, "fragua", "token"), nil
}
