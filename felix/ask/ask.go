// Package ask is how people ask a node's agent something: HTTP on a unix socket in
// its run directory that is for root alone, answered by objects in JSON, one a line.
// felix/flow and felix/peering answer so; koratctl, and korat inside of the agent's
// pod, ask.
package ask

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// ContentType is that of an answer.
const ContentType = "application/jsonl"

// Serve lets h answer on the socket until ctx ends, at most so many at once. Pods do
// not see the socket; who may exec into the agent's may ask.
func Serve(ctx context.Context, socket string, most int, h http.Handler) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		l.Close()
		return err
	}
	srv := &http.Server{
		Handler: limit(most, h), ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}

// limit bounds how many are answered at once.
func limit(most int, h http.Handler) http.Handler {
	clients := make(chan struct{}, most)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		select {
		case clients <- struct{}{}:
			defer func() { <-clients }()
			h.ServeHTTP(w, req)
		default:
			http.Error(w, fmt.Sprintf("%d others ask already", most), http.StatusServiceUnavailable)
		}
	})
}

// Open asks the agent behind a socket for a path. The answer ends by itself, or with
// ctx where the question follows what comes. The caller closes it.
func Open(ctx context.Context, socket, path string, params url.Values) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path+"?"+params.Encode(), nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	answer, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the agent at %s: %w", socket, err)
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1000)) // what can be had of the reason
		return nil, fmt.Errorf("ask the agent at %s: %s: %s", socket, answer.Status, bytes.TrimSpace(text))
	}
	return answer.Body, nil
}

// Read calls visit for each line until the answer ends.
func Read[Line any](answer io.Reader, visit func(Line) error) error {
	for lines := json.NewDecoder(answer); ; {
		var l Line
		if err := lines.Decode(&l); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("answer of the agent: %w", err)
		}
		if err := visit(l); err != nil {
			return err
		}
	}
}
