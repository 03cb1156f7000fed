package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/internal/client"
	"fragua.dev/fragua/internal/mask"
)

func secretCommand() *cobra.Command {
	set := &cobra.Command{Use: "set NAME", Short: "Set a secret, read from standard input", Args: exactly(1), Example: "  printf %s \"$TOKEN\" | fragua secret set NPM_TOKEN",
		Annotations: map[string]string{begins: ""},
		RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
			b, err := confidential(cmd, "Value of "+printable(args[0]), 1<<20)
			if err != nil {
				return err
			}
			value := strings.TrimSuffix(string(b), "\n")
			err = c.Call(cmd.Context(), "PUT", "/secrets/"+url.PathEscape(args[0]), map[string]string{"value": value}, nil)
			if err == nil && len(strings.TrimSpace(value)) < mask.MinLen {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s is set, but too short to be hidden in logs: those of %d bytes and more are\n", printable(args[0]), mask.MinLen)
			}
			return err
		})}
	rm := &cobra.Command{Use: "rm NAME", Short: "Delete a secret", Args: exactly(1), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
		return c.Call(cmd.Context(), "DELETE", "/secrets/"+url.PathEscape(args[0]), nil, nil)
	})}
	return group("secret", "Secrets", set, list("List secrets' names", "/secrets", []column{{"NAME", "name"}, {"UPDATED", "updated_at"}}), rm)
}

// tokenForm is how a token looks: three parts of base64.
var tokenForm = regexp.MustCompile(`^[\w-]+\.[\w-]+\.[\w-]+$`)

func tokenCommand() *cobra.Command {
	var (
		tenant string
		scopes []string
		ttl    time.Duration
	)
	create := &cobra.Command{Use: "create", Short: "Make a token, and print it and nothing else", Args: cobra.NoArgs, RunE: call(func(cmd *cobra.Command, _ []string, c *client.Client) error {
		in := map[string]any{}
		if tenant != "" {
			in["tenant_id"] = tenant
		}
		if scopes != nil {
			in["scopes"] = scopes
		}
		if ttl != 0 || cmd.Flags().Changed("ttl") {
			if ttl < time.Second {
				return usage(errors.New("--ttl: want at least 1s"))
			}
			in["ttl_ms"] = ttl.Milliseconds()
		}
		var out struct {
			Token string `json:"token"`
		}
		if err := c.Call(cmd.Context(), "POST", "/tokens", in, &out); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), out.Token)
		return nil
	})}
	create.Flags().StringVar(&tenant, "tenant", "", "the tenant; one's own unless given")
	create.Flags().StringArrayVar(&scopes, "scope", nil, "a scope, such as job:create; one's own unless given")
	create.Flags().DurationVar(&ttl, "ttl", 0, "how long it is valid; 24h unless given")
	return group("token", "Tokens", create)
}

func loginCommand() *cobra.Command {
	return &cobra.Command{Use: "login", Short: "Keep a token, read from standard input, for later calls", Args: cobra.NoArgs,
		Long:    "Reads a token from standard input, asks the server whose it is, and keeps it for later\ncalls. A token that the server does not take is not kept.",
		Example: "  fragua token create --scope 'job:*' | fragua login",
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := confidential(cmd, "Token", 64<<10)
			if err != nil {
				return err
			}
			token := strings.TrimSpace(string(b))
			if !tokenForm.MatchString(token) {
				return usage(errors.New("that is no token: want one as fragua token create prints it, on standard input"))
			}
			server, _ := cmd.Flags().GetString("server")
			data, _ := cmd.Flags().GetString("data")
			at := server
			if server == "" && data != "" {
				h, err := find(cmd.Context(), data, soonTime, cmd.ErrOrStderr())
				if err != nil {
					return err
				}
				if h.url == "" {
					return fmt.Errorf("the token is not kept: there is no server on %s that could say whose it is", data)
				}
				at = h.url
			} else if server == "" {
				server, at = defaultURL, defaultURL
			}
			var who struct {
				Sub    string `json:"sub"`
				Tenant string `json:"tenant_id"`
			}
			if err := client.New(at, token).Call(cmd.Context(), "GET", "/whoami", nil, &who); err != nil {
				return fmt.Errorf("the token is not kept: %w", err)
			}
			if err := keepToken(server, data, token); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "logged in as %s of tenant %s\n", printable(who.Sub), printable(who.Tenant))
			return nil
		}}
}

func logoutCommand() *cobra.Command {
	return &cobra.Command{Use: "logout", Short: "Forget the token that login kept", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		file, err := tokenFile()
		if err != nil {
			return err
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}}
}

func whoamiCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "whoami", Short: "Show who the token says you are", Args: cobra.NoArgs, RunE: call(func(cmd *cobra.Command, _ []string, c *client.Client) error {
		var out any
		if err := c.Call(cmd.Context(), "GET", "/whoami", nil, &out); err != nil {
			return err
		}
		return show(cmd, out, []column{{"SUBJECT", "sub"}, {"TENANT", "tenant_id"}, {"SCOPES", "scopes"}, {"UNTIL", "expires_at"}})
	})}
	outputFlag(cmd)
	return cmd
}
