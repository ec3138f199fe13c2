package calc_test

import (
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
)

// What a router teaches of a single pod would lead its packets past the tunnel.
func TestNoRouterLeadsPastATunnel(t *testing.T) {
	me, other := node("me", "", "172.16.0.1"), node("other", "", "172.17.0.2")
	wrapped := func(e desired.Encapsulation) event.Event {
		p := pool("10.0.0.0/16")
		p.Value.(*event.Pool).Modes.Sends.Encapsulation = e
		return p
	}
	for name, c := range map[string]struct {
		mode desired.Encapsulation
		hop  string
		want string
	}{
		"a router's, plain":          {desired.Plain, "172.16.0.254", "via 172.16.0.254"},
		"a router's, in IP":          {desired.IPIP, "172.16.0.254", "none"},
		"a router's, in VXLAN":       {desired.VXLAN, "172.16.0.254", "none"},
		"the node's own word, in IP": {desired.IPIP, "172.17.0.2", "via 172.17.0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			routesAre(t, map[string]routeCase{
				"told last":  {[]evs{{me, other, wrapped(c.mode), block("10.0.1.0/26", "other")}, {learned("10.0.1.7/32", c.hop)}}, "10.0.1.7/32", c.want},
				"told first": {[]evs{{me, other, wrapped(c.mode), learned("10.0.1.7/32", c.hop)}, {block("10.0.1.0/26", "other")}}, "10.0.1.7/32", c.want},
			})
		})
	}
}
