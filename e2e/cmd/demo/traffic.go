package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/koratnet/korat/e2e/lab/matrix"
	"github.com/koratnet/korat/e2e/lab/topology"
)

// settle is how long routes may take to be everywhere.
const settle = 20 * time.Second

// probes are how connectivity is tried.
var probes = []matrix.Probe{
	{Protocol: "icmp", Wait: 2 * time.Second},
	{Protocol: "tcp", Port: port, Wait: 2 * time.Second},
	{Protocol: "udp", Port: port, Wait: 2 * time.Second},
}

// distances group the pairs of pods by how far they are apart.
var distances = []string{"on one node", "in one rack", "across racks"}

func (s *story) distance(p matrix.Pair) string {
	from, to := s.nodeOf(p.From), s.nodeOf(p.To)
	switch {
	case from.Name == to.Name:
		return distances[0]
	case from.Rack == to.Rack:
		return distances[1]
	}
	return distances[2]
}

func (s *story) nodeOf(e matrix.End) topology.Node {
	for _, p := range thePods {
		if p[0]+"/"+p[1] == e.Name {
			return s.nodeNamed(p[2])
		}
	}
	return topology.Node{}
}

func (s *story) connectivity(ctx context.Context) {
	for _, ends := range s.families() {
		all := matrix.Pairs(ends)
		for _, probe := range probes {
			for _, d := range distances {
				pairs := slices.DeleteFunc(slices.Clone(all), func(p matrix.Pair) bool { return s.distance(p) != d })
				what := fmt.Sprintf("%-8s all %2d pairs of pods %s", probe, len(pairs), d)
				if ends[0].Addr.Is6() {
					what = "IPv6 " + what
				}
				if probe.Protocol != "icmp" {
					what += ", source address preserved"
				}
				s.within(ctx, settle, what, func(ctx context.Context) error { return probe.All(ctx, s.lab, pairs) })
			}
		}
	}
}

// paths compares the hops that traceroute sees with those of the topology.
func (s *story) paths(ctx context.Context) {
	for _, way := range [][2]string{{"shop/web", "shop/api"}, {"shop/db", "guest/ann"}, {"shop/web", "guest/ann"}, {"shop/web", "guest/cid"}} {
		from, to := s.end(way[0]), s.end(way[1])
		want := s.hops(ctx, from, to)
		var text string
		s.within(ctx, settle, fmt.Sprintf("%s to %s: %s", from.Name, to.Name, strings.Join(hopNames(want), " > ")), func(ctx context.Context) error {
			var err error
			if text, err = s.output(ctx, from.Name, "traceroute", "-n", "-q1", "-w1", to.Addr.String()); err != nil {
				return fmt.Errorf("%w: %s", err, text)
			}
			if got := seenHops(text); !slices.EqualFunc(got, want, func(a netip.Addr, h hop) bool { return h.answered(a) }) {
				return fmt.Errorf("saw %v", got)
			}
			return nil
		})
		s.show(text)
	}
}

// hop is a place on a packet's way, and the addresses that it may answer
// traceroute with.
type hop struct {
	name  string
	addrs []netip.Addr
}

func (h hop) answered(a netip.Addr) bool { return slices.Contains(h.addrs, a) }

// hops are those of a packet: the sender's node, the routers when it leaves
// the rack, the receiver's node and the receiver. A router does not see what is in
// a tunnel.
func (s *story) hops(ctx context.Context, from, to matrix.End) []hop {
	a, b := s.nodeOf(from), s.nodeOf(to)
	way := []hop{nodeHop(a)}
	way[0].addrs = append(way[0].addrs, s.inside(ctx, a.Name)...)
	if a.Rack != b.Rack && !s.tunneled(a, b) {
		way = append(way, hop{a.Rack.ToRs[0].Name, []netip.Addr{a.Rack.Gateways(false)[0].Addr()}})
		for _, link := range s.lab.Topology.Spine {
			if i := slices.Index(link.Between[:], b.Rack.ToRs[0].Name); i >= 0 {
				way = append(way, hop{link.Between[i], []netip.Addr{link.Ends(false)[i].Addr(), b.Rack.Gateways(false)[0].Addr()}})
			}
		}
	}
	if a.Name != b.Name {
		h := nodeHop(b)
		h.addrs = append(h.addrs, s.inside(ctx, b.Name)...)
		way = append(way, h)
	}
	return append(way, hop{to.Name, []netip.Addr{to.Addr}})
}

// nodeHop: in IPv6 a node answers with any of its addresses, and in IPv4 with
// that of the rack.
func nodeHop(n topology.Node) hop {
	if n.Address.Addr().Is6() {
		return hop{n.Name, []netip.Addr{n.Address.Addr(), n.Management.Addr()}}
	}
	return hop{n.Name, []netip.Addr{n.Address.Addr()}}
}

func hopNames(hops []hop) (out []string) {
	for _, h := range hops {
		out = append(out, h.name)
	}
	return out
}

// seenHops reads lines as " 2  10.101.0.1  0.040 ms".
func seenHops(text string) (out []netip.Addr) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 {
			if a, err := netip.ParseAddr(f[1]); err == nil {
				out = append(out, a)
			}
		}
	}
	return out
}

// tables compares the routers' kernel routes with where pods are.
func (s *story) tables(ctx context.Context) {
	s.within(ctx, settle, "tor-a (FRR) has the block of each node of its rack, by way of that node", func(ctx context.Context) error {
		return s.eachPod("a", func(e matrix.End, n topology.Node) error {
			block, err := s.blockOf(ctx, e.Addr)
			if err != nil {
				return err
			}
			return s.wantRoute("tor-a", netip.MustParsePrefix(string(block.Spec.CIDR)), n.Address.Addr())
		})
	})
	s.check("tor-a has no route for a single pod of its rack", s.eachPod("a", func(e matrix.End, _ topology.Node) error {
		return s.wantNoRoute("tor-a", e.Addr)
	}))
	s.within(ctx, settle, "tor-b (BIRD) has a /32 for each pod of its rack, by way of the pod's node", func(context.Context) error {
		return s.eachPod("b", func(e matrix.End, n topology.Node) error {
			return s.wantRoute("tor-b", host(e.Addr), n.Address.Addr())
		})
	})
	s.within(ctx, settle, "tor-a has learned the /32s of rack b over the spine", func(context.Context) error {
		return s.eachPod("b", func(e matrix.End, _ topology.Node) error { return s.wantRoute("tor-a", host(e.Addr)) })
	})
	s.remoteRoutes(ctx)
	show, pool := "show ip route bgp", s.lab.Topology.Pool
	if pool.Addr().Is6() {
		show = "show ipv6 route bgp"
	}
	for _, view := range [][]string{{"tor-a", "vtysh", "-c", show}, {"tor-b", "birdc", "show route where net ~ " + pool.String()}} {
		if text, err := s.output(ctx, view[0], view[1:]...); err == nil {
			s.show("# " + strings.Join(view, " ") + "\n" + onlyPods(text, pool))
		}
	}
}

// remoteRoutes looks at how a node's kernel reaches pods of the other rack.
func (s *story) remoteRoutes(ctx context.Context) {
	if s.wrapped() {
		s.tunnelRoutes(ctx)
		return
	}
	s.within(ctx, settle, "the kernel of node a1 has a route of Korat's to each pod of rack b, by way of tor-a", func(context.Context) error {
		return s.eachPod("b", func(e matrix.End, _ topology.Node) error {
			return s.wantRoute("a1", host(e.Addr), s.nodeNamed("a1").Rack.Gateways(false)[0].Addr())
		})
	})
}

// onlyPods drops the legend and all that is not about pods.
func onlyPods(text string, pool netip.Prefix) string {
	start := strings.TrimRight(pool.Addr().String(), "0:.") // as its addresses begin
	var out []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, start) || strings.HasPrefix(line, "\tvia") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// eachPod calls f for the pods of a rack and returns the first error.
func (s *story) eachPod(rack string, f func(matrix.End, topology.Node) error) error {
	for _, e := range s.ends {
		if n := s.nodeOf(e); n.Rack.Name == rack {
			if err := f(e, n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *story) nodeNamed(name string) topology.Node {
	for _, n := range s.lab.Topology.Nodes() {
		if n.Name == name {
			return n
		}
	}
	return topology.Node{}
}

// wantRoute wants the machine to have the prefix, by way of via if given.
func (s *story) wantRoute(machine string, p netip.Prefix, via ...netip.Addr) error {
	r, found, err := s.lab.RouteTo(machine, p)
	switch {
	case err != nil:
		return err
	case !found:
		return fmt.Errorf("%s has no route to %s", machine, p)
	case len(via) > 0 && !slices.Equal(r.Via, via):
		return fmt.Errorf("%s has %s via %v, not %v", machine, p, r.Via, via)
	}
	return nil
}

func (s *story) wantNoRoute(machine string, a netip.Addr) error {
	r, found, err := s.lab.RouteTo(machine, host(a))
	if err == nil && found {
		err = fmt.Errorf("%s has a route to %s via %v", machine, r.Prefix, r.Via)
	}
	return err
}

func (s *story) outside(ctx context.Context) {
	web, api := s.end("shop/web"), s.end("shop/api")
	outside := s.outsider(web)
	tcp := probes[1]
	for _, to := range []matrix.End{web, api} {
		what := fmt.Sprintf("the host outside (%s) asks %s over TCP and is seen under its own address", outside.Addr, to.Name)
		s.within(ctx, settle, what, func(ctx context.Context) error { return tcp.All(ctx, s.lab, []matrix.Pair{{From: outside, To: to}}) })
	}
	s.within(ctx, settle, "shop/api pings the host outside", func(ctx context.Context) error {
		return probes[0].All(ctx, s.lab, []matrix.Pair{{From: api, To: outside}})
	})
}

// outsider is the host outside, under its address of the family of to.
func (s *story) outsider(to matrix.End) matrix.End {
	h := s.lab.Topology.Hosts[0]
	a := h.Address(false).Addr()
	if a.Is4() != to.Addr.Is4() {
		a = h.Address(true).Addr()
	}
	return matrix.End{Name: h.Name, Addr: a}
}
