package gobgp_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// documented returns the configuration that the documentation shows below a line.
func documented(t *testing.T, line string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/bgp-restart.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n"+line+"\n\n```\n")
	config, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatalf("docs/bgp-restart.md has no configuration below %q", line)
	}
	return config
}

// TestReflectorsOfTheDocumentation: the configurations that people copy reflect
// between two nodes.
func TestReflectorsOfTheDocumentation(t *testing.T) {
	for daemon, start := range map[string]func(testing.TB, *kerneltest.Namespace, string) *router{"FRR:": frr, "BIRD:": bird} {
		t.Run(strings.TrimSuffix(daemon, ":"), func(t *testing.T) {
			t.Parallel()
			reflector, one, two := kerneltest.New(t), kerneltest.New(t), kerneltest.New(t)
			reflector.Run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
			joined(t, reflector, one, "one", map[*kerneltest.Namespace][]string{reflector: {"10.0.1.1/24"}, one: {"10.0.1.2/24"}})
			joined(t, reflector, two, "two", map[*kerneltest.Namespace][]string{reflector: {"10.0.2.1/24"}, two: {"10.0.2.2/24"}})
			start(t, reflector, documented(t, daemon))
			first := client(t, one, "10.0.1", block)
			second := client(t, two, "10.0.2", block2)
			eventually(t, "first node learned", map[string]string{block2.Prefix.String(): "10.0.2.2"}, func() any { return first.learned() })
			eventually(t, "second node learned", map[string]string{block.Prefix.String(): "10.0.1.2"}, func() any { return second.learned() })
		})
	}
}

// client is a node, .2 in its network, that says a path to the reflector behind .1.
func client(t *testing.T, ns *kerneltest.Namespace, network string, says bgp.Path) *process {
	t.Helper()
	ns.Run("ip", "route", "add", "default", "via", network+".1")
	own := netip.MustParseAddr(network + ".2")
	p := startSpeaker(t, ns, false)
	p.ask(request{Announce: []bgp.Path{says}})
	p.ask(request{Configure: &bgp.Config{
		ASN: 64512, RouterID: own, ListenPort: 179, RestartTime: time.Minute,
		Peers: []bgp.Peer{{
			Name: "bgppeer/reflector-a", Addr: netip.MustParseAddr("192.0.2.1"), Port: 179, ASN: 64512, LocalAddr: own, Advertise: bgp.Blocks,
		}},
	}})
	return p
}
