package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "config" || f.Name == "help" {
			return
		}
		name := "FRAGUA_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if f.Name == "server" {
			name = "FRAGUA_URL"
		}
		if v, ok := os.LookupEnv(name); ok && v != "" {
			if err := f.Value.Set(v); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		} else if v, ok := values[f.Name]; ok {
			if err := f.Value.Set(fmt.Sprint(v)); err != nil {
				errs = append(errs, fmt.Errorf("%s: %s: %w", file, f.Name, err))
			}
		}
	})
	if err := errors.Join(errs...); err != nil {
		return usage(err)
	}
	return nil
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
