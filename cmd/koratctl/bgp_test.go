package main

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/peering"
)

// quiet is a speaker with one neighbour and one route.
type quiet struct{}

func (quiet) Sessions(context.Context) ([]bgp.Session, error) {
	return []bgp.Session{{Peer: "bgppeer/tor", Addr: netip.MustParseAddr("10.0.0.1"), ASN: 65001, State: "Active", LastError: "connection refused"}}, nil
}

func (quiet) Routes(_ context.Context, which bgp.Routes) ([]bgp.Route, error) {
	if which.Peer != "" && which.Peer != "bgppeer/tor" {
		return nil, nil
	}
	return []bgp.Route{{Peer: "bgppeer/tor", Prefix: netip.MustParsePrefix("10.244.0.0/26"), Rejected: "filter f rule 1"}}, nil
}

// agentOf runs an agent's desk and returns its run directory.
func agentOf(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "koratctl") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- peering.NewDesk("a1", quiet{}).Serve(ctx, dir) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		answer, err := peering.Open(t.Context(), peering.SocketIn(dir), peering.Question{What: peering.Peers})
		if err == nil {
			answer.Close()
			return dir
		}
	}
	t.Fatal("the desk does not answer")
	return ""
}

func TestBGPOfThisNode(t *testing.T) {
	dir := agentOf(t)
	for name, c := range map[string]struct {
		args []string
		code int
		want string // in the output
	}{
		"peers":                {[]string{"bgp", "peers"}, 0, "a1    bgppeer/tor  10.0.0.1  65001  Active  -    0         0         0           -    connection refused"},
		"peers as JSON":        {[]string{"bgp", "peers", "-o", "json"}, 0, `{"node":"a1","session":{"peer":"bgppeer/tor","address":"10.0.0.1","as":65001,"state":"Active"`},
		"routes":               {[]string{"bgp", "routes"}, 0, "rejected: filter f rule 1"},
		"rejected routes":      {[]string{"bgp", "routes", "--only", "rejected", "10.244.0.0/16"}, 0, "rejected: filter f rule 1"},
		"explain an address":   {[]string{"bgp", "explain", "10.244.0.7"}, 0, "bgppeer/tor says 10.244.0.0/26, rejected: filter f rule 1"},
		"explain no prefix":    {[]string{"bgp", "explain", "web"}, 1, `"web" is no address and no prefix`},
		"another node too":     {[]string{"bgp", "peers", "--node", "b1"}, 1, "both --run-dir and --node are given, expected one"},
		"an unknown kind":      {[]string{"bgp", "routes", "--only", "some"}, 1, `--only is "some", expected learnt, advertised or rejected`},
		"no routes of nobody":  {[]string{"bgp", "routes", "--peer", "bgppeer/x"}, 0, "NODE  PREFIX"},
		"routes that are told": {[]string{"bgp", "routes", "--only", "advertised"}, 0, "NODE  PREFIX"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, problems strings.Builder
			code := run(t.Context(), append(c.args, "--run-dir", dir), strings.NewReader(""), &out, &problems)
			if all := out.String() + problems.String(); code != c.code || !strings.Contains(all, c.want) {
				t.Errorf("exit status %d, output\n%s\nwant %d and %q", code, all, c.code, c.want)
			}
		})
	}
}
