package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"fragua.dev/fragua/internal/client"
)

var artColumns = []column{{"REPOSITORY", "repository"}, {"NAME", "name"}, {"VERSION", "version"}, {"BYTES", "size_bytes"}, {"STATUS", "status"}, {"ENVIRONMENTS", "environments"}, {"CREATED", "created_at"}}

// refPath turns REPOSITORY/NAME/VERSION into a path.
func refPath(ref string) (string, error) {
	parts := strings.Split(ref, "/")
	if len(parts) != 3 {
		return "", usage(errors.New("want REPOSITORY/NAME/VERSION"))
	}
	return "/artifacts/" + url.PathEscape(parts[0]) + "/" + url.PathEscape(parts[1]) + "/" + url.PathEscape(parts[2]), nil
}

func artifactCommand() *cobra.Command {
	ref := func(use, short, method, suffix string) *cobra.Command {
		cmd := &cobra.Command{Use: use, Short: short, Args: exactly(1), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
			path, err := refPath(args[0])
			if err != nil {
				return err
			}
			var out any
			if err := c.Call(cmd.Context(), method, path+suffix, nil, &out); err != nil {
				return err
			}
			return show(cmd, out, artColumns)
		})}
		outputFlag(cmd)
		return cmd
	}
	upload := &cobra.Command{Use: "upload REPOSITORY/NAME/VERSION FILE", Short: "Upload a file", Args: exactly(2), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
		f, err := os.Open(args[1])
		if err != nil {
			return usage(err)
		}
		defer f.Close()
		out, err := upload(cmd, c, args[0], f)
		if err != nil {
			return err
		}
		return show(cmd, out, artColumns)
	})}
	outputFlag(upload)
	var to string
	download := &cobra.Command{Use: "download REPOSITORY/NAME/VERSION", Short: "Download an artifact", Args: exactly(1), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
		path, err := refPath(args[0])
		if err != nil {
			return err
		}
		if to == "-" {
			return receive(cmd.Context(), c, path+"/content", cmd.OutOrStdout())
		}
		own := strings.Split(args[0], "/")[1]
		if info, err := os.Stat(to); err == nil && info.IsDir() {
			to = filepath.Join(to, own)
		}
		if to == "" {
			to = own
		}
		f, err := partial(to)
		if err != nil {
			return err
		}
		defer os.Remove(f.Name()) // it is gone when all went well
		if err := errors.Join(receive(cmd.Context(), c, path+"/content", f), f.Close()); err != nil {
			return err
		}
		return os.Rename(f.Name(), to)
	})}
	download.Flags().StringVar(&to, "to", "", "file or folder to write to; - is standard output; the artifact's name unless given")
	var env string
	promote := &cobra.Command{Use: "promote REPOSITORY/NAME/VERSION", Short: "Let an artifact be used in an environment", Args: exactly(1), RunE: call(func(cmd *cobra.Command, args []string, c *client.Client) error {
		path, err := refPath(args[0])
		if err != nil {
			return err
		}
		if env == "" {
			return usage(errors.New("want --env: the environment in which it may be used"))
		}
		var out any
		if err := c.Call(cmd.Context(), "POST", path+"/promote", map[string]string{"env": env}, &out); err != nil {
			return err
		}
		return show(cmd, out, artColumns)
	})}
	promote.Flags().StringVar(&env, "env", "", "the environment")
	outputFlag(promote)
	return group("artifact", "Artifacts", upload, download, list("List artifacts", "/artifacts", artColumns, "repository", "name"),
		ref("get REPOSITORY/NAME/VERSION", "Show an artifact", "GET", ""), promote,
		ref("validate REPOSITORY/NAME/VERSION", "Compare an artifact with its checksum", "POST", "/validate"), ref("delete REPOSITORY/NAME/VERSION", "Delete an artifact", "DELETE", ""))
}

// partial creates the file that is to become another once it is whole. Unlike one from
// os.CreateTemp it is for whom umask says.
func partial(to string) (*os.File, error) {
	return os.OpenFile(filepath.Join(filepath.Dir(to), ".download-"+strconv.FormatUint(rand.Uint64(), 36)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}

// upload sends a content that can be read twice.
func upload(cmd *cobra.Command, c *client.Client, name string, content io.ReadSeeker) (out any, err error) {
	parts := strings.Split(name, "/")
	if len(parts) != 3 {
		return nil, usage(errors.New("want REPOSITORY/NAME/VERSION"))
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, content); err != nil {
		return nil, err
	}
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	q := url.Values{"repository": {parts[0]}, "name": {parts[1]}, "version": {parts[2]}, "checksum": {"sha256:" + hex.EncodeToString(sum.Sum(nil))}}
	resp, err := c.Do(cmd.Context(), http.MethodPost, "/artifacts?"+q.Encode(), content, http.Header{"Content-Type": {"application/octet-stream"}})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	dec.UseNumber()
	return out, dec.Decode(&out)
}

// receive writes a content, and fails unless it has the sum that the server says it has.
func receive(ctx context.Context, c *client.Client, path string, to io.Writer) error {
	resp, err := c.Do(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(to, sum), resp.Body); errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the content broke off: it is corrupt, or the server went away; fragua artifact get says which")
	} else if err != nil {
		return err
	}
	want := strings.Trim(strings.TrimPrefix(resp.Header.Get("ETag"), "W/"), `"`)
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("what came is not the artifact: its SHA-256 is %s, and the server names %s", got, cmp.Or(printable(want), "none"))
	}
	return nil
}
