package whatif

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
	"github.com/koratnet/korat/policy/eval"
)

// end is one end of connections: a pod, a node, or an address outside.
type end struct {
	name  string
	kind  endKind
	addrs [2][]netip.Addr // before and after
	node  string          // on which it is
}

type endKind int

const (
	aPod endKind = iota
	aNode
	outside
)

// class are ends of one kind that no policy tells apart, before or after.
type class []end

// String names up to three of the class.
func (c class) String() string {
	var names []string
	for _, e := range c {
		names = append(names, e.name)
	}
	if len(names) > 3 {
		names = append(names[:2], fmt.Sprintf("%d more like them", len(c)-2))
	}
	return strings.Join(names, ", ")
}

// classes returns the ends of which both clusters know, grouped.
func classes(before, after *eval.Cluster) []class {
	one, two := newTraits(before, 0), newTraits(after, 1)
	var order []string
	groups := map[string]class{}
	add := func(e end) {
		key := fmt.Sprint(e.kind) + one.of(e) + "\n" + two.of(e)
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], e)
	}
	for _, e := range ends(before, after) {
		add(e)
	}
	var out []class
	for _, key := range order {
		out = append(out, groups[key])
	}
	return out
}

// ends returns the pods and nodes that are in both clusters, and addresses
// outside, each list in order of names.
func ends(before, after *eval.Cluster) []end {
	var out []end
	for _, p := range after.Pods {
		if old := before.Pod(p.Namespace, p.Name); old != nil && len(old.Addrs) > 0 && len(p.Addrs) > 0 {
			out = append(out, end{p.Namespace + "/" + p.Name, aPod, [2][]netip.Addr{old.Addrs, p.Addrs}, p.Node})
		}
	}
	for _, n := range after.Nodes {
		i := slices.IndexFunc(before.Nodes, func(old eval.Node) bool { return old.Name == n.Name })
		if i >= 0 && len(before.Nodes[i].Addrs) > 0 && len(n.Addrs) > 0 {
			out = append(out, end{"node " + n.Name, aNode, [2][]netip.Addr{before.Nodes[i].Addrs, n.Addrs}, n.Name})
		}
	}
	slices.SortFunc(out, func(a, b end) int {
		if a.kind != b.kind {
			return int(a.kind) - int(b.kind)
		}
		return strings.Compare(a.name, b.name)
	})
	return append(out, strangers(before, after)...)
}

// Addresses of which one stands for what is elsewhere, the first that no policy
// names: those of RFC 5737 and RFC 3849 for documentation.
var elsewhere = [...][]string{
	{"203.0.113.1", "198.51.100.1", "192.0.2.1"},
	{"2001:db8:ffff::1", "2001:db8:eeee::1", "2001:db8:dddd::1"},
}

// strangers returns addresses outside of the cluster: for each range that
// policies name, and those that are in none of them.
func strangers(before, after *eval.Cluster) []end {
	taken := taken(before, after)
	nets := slices.Concat(newTraits(before, 0).nets, newTraits(after, 1).nets)
	slices.SortFunc(nets, netip.Prefix.Compare)
	var out []end
	for _, n := range slices.Compact(nets) {
		for _, a := range []netip.Addr{n.Addr(), last(n)} {
			if !taken[a] && n.Bits() > 0 {
				out = append(out, stranger(a.String(), a))
				taken[a] = true
			}
		}
	}
	var other []netip.Addr
	for _, family := range elsewhere {
		i := slices.IndexFunc(family, func(text string) bool {
			a := netip.MustParseAddr(text)
			named := func(n netip.Prefix) bool { return n.Bits() > 0 && n.Contains(a) }
			return !taken[a] && !slices.ContainsFunc(nets, named)
		})
		if i >= 0 {
			other = append(other, netip.MustParseAddr(family[i]))
		}
	}
	return append(out, stranger("elsewhere", other...))
}

func stranger(name string, addrs ...netip.Addr) end {
	return end{name: name, kind: outside, addrs: [2][]netip.Addr{addrs, addrs}}
}

// taken are the addresses of pods and nodes.
func taken(clusters ...*eval.Cluster) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, c := range clusters {
		for _, p := range c.Pods {
			for _, a := range p.Addrs {
				out[a] = true
			}
		}
		for _, n := range c.Nodes {
			for _, a := range n.Addrs {
				out[a] = true
			}
		}
	}
	return out
}

// last returns the last address of n.
func last(n netip.Prefix) netip.Addr {
	b := n.Addr().AsSlice()
	for i := n.Bits(); i < n.Addr().BitLen(); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// traits is all that policies of a cluster ask about ends.
type traits struct {
	c      *eval.Cluster
	which  int // 0 before, 1 after
	scopes []policy.Scope
	nets   []netip.Prefix
}

func newTraits(c *eval.Cluster, which int) *traits {
	t := &traits{c: c, which: which}
	seen := map[string]bool{}
	scope := func(s policy.Scope) {
		if text := s.String(); !seen[text] {
			seen[text] = true
			t.scopes = append(t.scopes, s)
		}
	}
	for _, p := range c.Policies {
		scope(p.Subject)
		for _, d := range policy.Directions {
			for _, s := range compile.Sets(p, d) {
				scope(s.Scope)
			}
			for _, r := range p.Rules(d) {
				for _, peer := range slices.Concat(r.Peers, r.Own) {
					t.nets = append(append(t.nets, peer.Nets...), peer.Except...)
				}
			}
		}
	}
	for _, s := range c.NetworkSets {
		t.nets = append(t.nets, s.Nets...)
	}
	slices.SortFunc(t.nets, netip.Prefix.Compare)
	t.nets = slices.Compact(t.nets)
	return t
}

// of returns a text that is equal for ends which the policies do not tell apart.
func (t *traits) of(e end) string {
	var b strings.Builder
	for _, a := range e.addrs[t.which] {
		fmt.Fprintf(&b, "family %d;", a.BitLen())
		for i, n := range t.nets {
			if n.Contains(a) {
				fmt.Fprintf(&b, "net %d;", i)
			}
		}
		for i, h := range t.c.HostEndpoints {
			if slices.Contains(h.Addrs, a) {
				fmt.Fprintf(&b, "host endpoint %d;", i)
			}
		}
		for _, s := range t.c.Services {
			for _, served := range s.Ends {
				if served.Addr == a {
					fmt.Fprintf(&b, "service %s %d %d;", s.ServiceName, served.Protocol, served.Port)
				}
			}
		}
	}
	switch e.kind {
	case aPod:
		t.pod(&b, e)
	case aNode:
		t.node(&b, e)
	}
	return b.String()
}

func (t *traits) pod(b *strings.Builder, e end) {
	namespace, name, _ := strings.Cut(e.name, "/")
	p := t.c.Pod(namespace, name)
	for i, s := range t.scopes {
		if t.c.Selects(s, p) {
			fmt.Fprintf(b, "scope %d;", i)
		}
	}
	fmt.Fprint(b, p.Ports)
}

func (t *traits) node(b *strings.Builder, e end) {
	for _, n := range t.c.Nodes {
		if n.Name != e.node {
			continue
		}
		for i, s := range t.scopes {
			if s, ok := s.For(policy.Nodes); ok && s.Pods.Matches(n.Labels) {
				fmt.Fprintf(b, "scope %d;", i)
			}
		}
	}
}
