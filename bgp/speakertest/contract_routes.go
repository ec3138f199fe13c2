package speakertest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/koratnet/korat/bgp"
)

func broken(l *lab) {
	a, b, c := l.node(64512), l.node(64512), l.node(64512)
	l.link(a, b)
	l.link(a, c)
	b.announce(block)
	c.announce(pod)
	l.begin(a, b, c)
	both := map[string]string{block.Prefix.String(): b.addr.String(), pod.Prefix.String(): c.addr.String()}
	a.learns(both)
	before, other := a.up(b), a.up(c)
	if err := a.speaker.Break(l.Context(), b.addr, "BFD: no packets for 300ms"); err != nil {
		l.Fatalf("break: %v", err)
	}
	l.wait("withdrawal of what the dead neighbour said", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return slices.Equal(a.withdrawn, []netip.Prefix{block.Prefix})
	})
	a.learns(both)
	again := a.up(b)
	if s := a.session(b); !again.After(before) || s.LastError != "" {
		l.Errorf("session %+v, want one that came up after %s", s, before)
	}
	if s := a.session(c); !s.Established || !s.Since.Equal(other) {
		l.Errorf("session %+v, want the one that came up at %s", s, other)
	}
	if err := a.speaker.Break(l.Context(), netip.MustParseAddr("192.0.2.99"), "nobody"); err != nil {
		l.Errorf("break of no session: %v", err)
	}
}

func routes(l *lab) {
	a, b, c := l.node(64512), l.node(64512), l.node(65001)
	l.link(a, b)
	l.link(a, c)
	a.announce(pod)
	b.announce(block)
	c.announce(block)
	l.begin(a, b, c)
	a.learns(map[string]string{block.Prefix.String(): b.addr.String()})
	l.wait("routes of all sessions", func() bool { return len(a.routes(bgp.Routes{})) == 5 })
	for _, tc := range []struct {
		which bgp.Routes
		want  []string
	}{
		{bgp.Routes{}, []string{
			"block from b, path [] best", "block from c, path [65001]",
			"pod own, path [] best", "pod to b, path []", "pod to c, path [64512]",
		}},
		{bgp.Routes{Peer: c.name}, []string{"block from c, path [65001]", "pod to c, path [64512]"}},
		{bgp.Routes{Prefix: pod.Prefix}, []string{"pod own, path [] best", "pod to b, path []", "pod to c, path [64512]"}},
		{bgp.Routes{Prefix: netip.MustParsePrefix("10.9.0.0/16")}, nil},
		{bgp.Routes{Peer: "nobody"}, nil},
	} {
		if got := a.describe(tc.which, map[string]string{b.name: "b", c.name: "c"}); !slices.Equal(got, tc.want) {
			l.Errorf("routes %+v:\n%s\nwant\n%s", tc.which, strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
		}
	}
}

func (n *node) routes(which bgp.Routes) []bgp.Route {
	n.l.Helper()
	out, err := n.speaker.Routes(n.l.Context(), which)
	if err != nil {
		n.l.Fatalf("routes: %v", err)
	}
	return out
}

// describe returns routes in words, sorted, with names for peers.
func (n *node) describe(which bgp.Routes, names map[string]string) []string {
	n.l.Helper()
	var out []string
	for _, r := range n.routes(which) {
		name := map[netip.Prefix]string{block.Prefix: "block", pod.Prefix: "pod"}[r.Prefix]
		switch {
		case r.Peer == "":
			name += " own"
		case r.Told:
			name += " to " + names[r.Peer]
		default:
			name += " from " + names[r.Peer]
		}
		name += fmt.Sprintf(", path %v", r.ASPath)
		if r.Best {
			name += " best"
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
