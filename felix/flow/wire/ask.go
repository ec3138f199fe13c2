package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
)

// DefaultSocket is where the agent answers unless it is told another run directory.
const DefaultSocket = "/run/korat/" + Socket

// Question chooses drops: those of any of the pods (namespace/name) or addresses,
// all if there are none. Follow asks for what comes as well.
type Question struct {
	Pods   []string
	Addrs  []netip.Addr
	Follow bool
}

// SocketIn returns the socket in a run directory.
func SocketIn(runDir string) string { return filepath.Join(runDir, Socket) }

// Open asks the agent behind a socket. The answer is lines of JSON; it ends by
// itself, or with ctx where the question follows. The caller closes it.
func Open(ctx context.Context, socket string, q Question) (io.ReadCloser, error) {
	params := url.Values{PodParam: q.Pods}
	for _, a := range q.Addrs {
		params.Add(AddrParam, a.String())
	}
	if q.Follow {
		params.Set(FollowParam, "")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+DropsPath+"?"+params.Encode(), nil)
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
func Read(answer io.Reader, visit func(Line) error) error {
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
