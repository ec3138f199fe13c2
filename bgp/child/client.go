package child

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/reconcile"
)

// Client is the speaker as the agent has it. All its methods may be called at the
// same time. While no speaker answers they return errors, except Learned, which waits.
type Client struct {
	http      *http.Client
	connected func()
}

var _ reconcile.Lasting = (*Client)(nil)

// NewClient returns a client of the speaker of an agent with that run directory.
// connected is called by Learned whenever it finds a speaker: it may be another one
// than before, which knows nothing, or what an earlier agent said.
func NewClient(runDir string, connected func()) *Client {
	return &Client{connected: connected, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", Socket(runDir))
		},
		MaxIdleConns: 4, IdleConnTimeout: time.Minute,
	}}}
}

// Configure implements reconcile.Speaker.
func (c *Client) Configure(ctx context.Context, config bgp.Config) error {
	return c.call(ctx, callConfigure, seal(config), nil)
}

// Announce implements reconcile.Speaker.
func (c *Client) Announce(ctx context.Context, paths []bgp.Path) error {
	return c.inParts(ctx, callAnnounce, paths)
}

// Withdraw implements reconcile.Speaker.
func (c *Client) Withdraw(ctx context.Context, paths []bgp.Path) error {
	return c.inParts(ctx, callWithdraw, paths)
}

func (c *Client) inParts(ctx context.Context, path string, paths []bgp.Path) error {
	for part := range slices.Chunk(paths, pathsPerCall) {
		if err := c.call(ctx, path, part, nil); err != nil {
			return err
		}
	}
	return nil
}

// Originated implements reconcile.Lasting.
func (c *Client) Originated(ctx context.Context) (paths []bgp.Path, err error) {
	return paths, c.call(ctx, callPaths, struct{}{}, &paths)
}

// Sessions implements reconcile.Speaker.
func (c *Client) Sessions(ctx context.Context) (sessions []bgp.Session, err error) {
	return sessions, c.call(ctx, callSessions, struct{}{}, &sessions)
}

// Routes implements reconcile.Speaker.
func (c *Client) Routes(ctx context.Context, of bgp.Routes) (routes []bgp.Route, err error) {
	return routes, c.call(ctx, callRoutes, of, &routes)
}

// Break implements reconcile.Speaker.
func (c *Client) Break(ctx context.Context, peer netip.Addr, why string) error {
	return c.call(ctx, callBreak, breaking{peer, why}, nil)
}

// Stop ends the speaker. Neighbours keep its paths where graceful restart was
// agreed.
func (c *Client) Stop(ctx context.Context) error {
	return c.call(ctx, callStop, struct{}{}, nil)
}

// live returns a stream that ends with the speaker's process, and its version.
func (c *Client) live(ctx context.Context) (end io.ReadCloser, version string, err error) {
	resp, err := c.ask(ctx, callLive, struct{}{})
	if err != nil {
		return nil, "", err
	}
	return resp.Body, resp.Header.Get(headerVersion), nil
}

func (c *Client) call(ctx context.Context, path string, in, out any) error {
	resp, err := c.ask(ctx, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err := io.Copy(io.Discard, resp.Body)
		return err
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("bgp speaker: answer to %s: %w", path, err)
	}
	return nil
}

// ask returns the answer if it is 200.
func (c *Client) ask(ctx context.Context, path string, in any) (*http.Response, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("bgp speaker: request %s: %w", path, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://speaker"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("bgp speaker: request %s: %w", path, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("bgp speaker does not answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return nil, errors.New(strings.TrimSpace(string(text)))
	}
	return resp, nil
}

// Learned implements reconcile.Speaker over any number of speakers, one after the
// other: what one said stays until the next one has heard all of its neighbours,
// then what that one did not say again is withdrawn.
func (c *Client) Learned(ctx context.Context, fn func(changed []bgp.Learned, synced bool)) error {
	told := map[netip.Prefix]struct{}{}
	synced := false
	for ctx.Err() == nil {
		_ = c.follow(ctx, told, &synced, fn) // the speaker went away; the Keeper says so
		select {
		case <-ctx.Done():
		case <-time.After(lookAgain):
		}
	}
	return nil
}

// lookAgain is how soon after the loss of a speaker the next one is looked for.
const lookAgain = 100 * time.Millisecond

// follow tells fn what one speaker says until it goes away. told are the prefixes
// that fn knows of.
func (c *Client) follow(ctx context.Context, told map[netip.Prefix]struct{}, synced *bool, fn func([]bgp.Learned, bool)) error {
	resp, err := c.ask(ctx, callLearned, struct{}{})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	c.connected()
	missing := make(map[netip.Prefix]struct{}, len(told)) // that this speaker has not said yet
	for p := range told {
		missing[p] = struct{}{}
	}
	in := bufio.NewReaderSize(resp.Body, 64<<10)
	for complete := false; ; {
		changed, all, err := readFrame(in)
		if err != nil {
			return err
		}
		for _, l := range changed {
			delete(missing, l.Prefix)
			if len(l.NextHops) == 0 {
				delete(told, l.Prefix)
			} else {
				told[l.Prefix] = struct{}{}
			}
		}
		if all && !complete {
			complete, *synced = true, true
			for p := range missing {
				changed = append(changed, bgp.Learned{Prefix: p})
				delete(told, p)
			}
			missing = nil
		}
		fn(changed, *synced)
	}
}
