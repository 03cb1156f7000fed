package program

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// maxReply is the greatest answer that is read, in bytes.
const maxReply = 64 << 20

// Call sends body, if any, as JSON to a path of the server's API and reads the
// answer into out, if any. A status of 400 and more is an error, that tells the
// answer; the status is returned beside it. client is usually http.DefaultClient.
func (s *Server) Call(ctx context.Context, client *http.Client, method, path string, body, out any) (status int, err error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, in)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+s.Token)
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxReply))
	if err != nil {
		return res.StatusCode, err
	}
	if res.StatusCode >= http.StatusBadRequest {
		return res.StatusCode, fmt.Errorf("%s %s: %s: %.300s", method, path, res.Status, b)
	}
	if out == nil {
		return res.StatusCode, nil
	}
	return res.StatusCode, json.Unmarshal(b, out)
}
