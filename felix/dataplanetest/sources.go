package dataplanetest

import (
	"net/netip"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
)

// furtherSources: a may send from more than its addresses, and nobody else may.
func (w *world) furtherSources() {
	d := w.open()
	a := *d.Endpoints[w.sites["a"].iface]
	a.Sources = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/25"), netip.MustParsePrefix("2001:db8:113::/64")}
	plain := d.Endpoints[a.Interface]
	d.Endpoints[a.Interface] = &a
	w.apply(d)
	for _, is6 := range bothFamilies {
		inside, beside := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("203.0.113.200")
		if is6 {
			inside, beside = netip.MustParseAddr("2001:db8:113::9"), netip.MustParseAddr("2001:db8:113:1::9")
		}
		for _, to := range []string{"b", "out0"} {
			claim := func(from string, a netip.Addr) shot { return w.shot(from, to, is6, policy.UDP, 80).claiming(a) }
			w.all(true, []shot{w.shot("a", to, is6, policy.UDP, 80), claim("a", inside)})
			w.all(false, []shot{claim("a", beside), claim("c", inside)})
		}
	}
	d.Endpoints = map[string]*desired.Endpoint{a.Interface: plain}
	w.apply(d)
	w.all(false, []shot{w.shot("a", "b", false, policy.UDP, 80).claiming(netip.MustParseAddr("203.0.113.9"))})
}
