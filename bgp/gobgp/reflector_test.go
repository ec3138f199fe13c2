package gobgp_test

import (
	"fmt"
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
// between nodes, and a prefix that two of them say has two next hops (RFC 7911). So
// does Korat's own reflector.
func TestReflectorsOfTheDocumentation(t *testing.T) {
	for daemon, start := range map[string]func(*testing.T, *kerneltest.Namespace){
		"FRR":   func(t *testing.T, ns *kerneltest.Namespace) { frr(t, ns, documented(t, "FRR:")) },
		"BIRD":  func(t *testing.T, ns *kerneltest.Namespace) { bird(t, ns, documented(t, "BIRD:")) },
		"Korat": reflector,
	} {
		t.Run(daemon, func(t *testing.T) {
			t.Parallel()
			hub, nodes := around(t)
			start(t, hub)
			learns := func(node int, want map[string]string) {
				t.Helper()
				eventually(t, fmt.Sprintf("node %d learned", node+1), want, func() any { return nodes[node].learned() })
			}
			learns(0, map[string]string{block2.Prefix.String(): "10.0.2.2", service.Prefix.String(): "10.0.2.2 10.0.3.2"})
			learns(1, map[string]string{block.Prefix.String(): "10.0.1.2"})
			learns(2, map[string]string{block.Prefix.String(): "10.0.1.2", block2.Prefix.String(): "10.0.2.2"})
			nodes[1].ask(request{Withdraw: []bgp.Path{service}})
			learns(0, map[string]string{block2.Prefix.String(): "10.0.2.2", service.Prefix.String(): "10.0.3.2"})
			learns(1, map[string]string{block.Prefix.String(): "10.0.1.2", service.Prefix.String(): "10.0.3.2"})
			nodes[1].ask(request{Announce: []bgp.Path{service}})
			learns(0, map[string]string{block2.Prefix.String(): "10.0.2.2", service.Prefix.String(): "10.0.2.2 10.0.3.2"})
		})
	}
}

// around returns a place for a reflector, and three nodes around it, two of which say
// service.
func around(t *testing.T) (hub *kerneltest.Namespace, nodes []*process) {
	t.Helper()
	hub = kerneltest.New(t)
	hub.Run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	for i, says := range [][]bgp.Path{{block}, {block2, service}, {service}} {
		net, link, ns := fmt.Sprintf("10.0.%d", i+1), fmt.Sprintf("n%d", i+1), kerneltest.New(t)
		joined(t, hub, ns, link, map[*kerneltest.Namespace][]string{hub: {net + ".1/24"}, ns: {net + ".2/24"}})
		nodes = append(nodes, client(t, ns, net, says...))
	}
	return hub, nodes
}

var service = bgp.Path{Prefix: netip.MustParsePrefix("198.51.100.7/32"), Kind: bgp.Blocks}

// TestOnePathWhereSeveralAreNotOffered: it is enough that one side does not offer it,
// and when that changes no other session begins anew.
func TestOnePathWhereSeveralAreNotOffered(t *testing.T) {
	t.Parallel()
	hub, nodes := around(t)
	one, several := ofClient("10.0.1"), ofClient("10.0.1")
	one.Peers[0].OnePath = true
	nodes[0].ask(request{Configure: one})
	middle := startSpeaker(t, hub, false)
	middle.ask(request{Configure: ofReflector()})
	both := "10.0.2.2 10.0.3.2"
	eventually(t, "the reflector learned", both, func() any { return middle.learned()[service.Prefix.String()] })
	takes := func(hops int) {
		t.Helper()
		eventually(t, "next hops that node 1 learned", hops, func() any { return len(strings.Fields(nodes[0].learned()[service.Prefix.String()])) })
	}
	after := bgp.Path{Prefix: netip.MustParsePrefix("10.244.0.128/26"), Kind: bgp.Blocks}
	nodes[2].ask(request{Announce: []bgp.Path{after}})
	eventually(t, "what was said last has come", "10.0.3.2", func() any { return nodes[0].learned()[after.Prefix.String()] })
	takes(1)
	nodes[0].ask(request{Configure: several})
	takes(2)

	began, since := middle.session("nodenetwork/n1").Since, middle.session("nodenetwork/n2").Since
	silent := ofReflector()
	silent.Peers[0].OnePath = true
	middle.ask(request{Configure: silent})
	eventually(t, "the session with node 1 began anew", true, func() any {
		s := middle.session("nodenetwork/n1")
		return s.Established && s.Since.After(began)
	})
	takes(1)
	if s := middle.session("nodenetwork/n2"); !s.Established || !s.Since.Equal(since) {
		t.Errorf("the session with another node began anew: %+v, want one since %s", s, since)
	}
}

// reflector is a node that reflects between three.
func reflector(t *testing.T, ns *kerneltest.Namespace) {
	startSpeaker(t, ns, false).ask(request{Configure: ofReflector()})
}

func ofReflector() *bgp.Config {
	own := netip.MustParseAddr("192.0.2.1")
	c := &bgp.Config{ASN: 64512, RouterID: own, ClusterID: own, ListenPort: 179, RestartTime: time.Minute}
	for i := range 3 {
		c.Peers = append(c.Peers, bgp.Peer{
			Name: fmt.Sprintf("nodenetwork/n%d", i+1), Addr: netip.AddrFrom4([4]byte{10, 0, byte(i + 1), 2}), Port: 179, ASN: 64512,
			LocalAddr: own, ReflectorClient: true, AddPaths: true, Passive: true,
		})
	}
	return c
}

// client is a node, .2 in its network, that says paths to the reflector behind .1.
func client(t *testing.T, ns *kerneltest.Namespace, network string, says ...bgp.Path) *process {
	t.Helper()
	ns.Run("ip", "route", "add", "default", "via", network+".1")
	p := startSpeaker(t, ns, false)
	p.ask(request{Announce: says})
	p.ask(request{Configure: ofClient(network)})
	return p
}

func ofClient(network string) *bgp.Config {
	own := netip.MustParseAddr(network + ".2")
	return &bgp.Config{
		ASN: 64512, RouterID: own, ListenPort: 179, RestartTime: time.Minute,
		Peers: []bgp.Peer{{
			Name: "bgppeer/reflector-a", Addr: netip.MustParseAddr("192.0.2.1"), Port: 179, ASN: 64512, LocalAddr: own, Advertise: bgp.Blocks,
		}},
	}
}
