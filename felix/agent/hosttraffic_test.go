package agent

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/koratnet/korat/felix/desired"
)

// TestNodesAreCountedByHowTheNodeItselfSendsToThem: where that is to be encrypted, each
// once, whether it has announced a key or not.
func TestNodesAreCountedByHowTheNodeItselfSendsToThem(t *testing.T) {
	v4, v6 := desired.WireGuard4, desired.WireGuard6
	type ends map[desired.EncryptedEnd]desired.EncryptedPeer
	end := func(kind desired.TunnelKind, n byte) desired.EncryptedEnd {
		return desired.EncryptedEnd{Kind: kind, Key: desired.Key{n}}
	}
	at := func(addr string, host bool) desired.EncryptedPeer {
		return desired.EncryptedPeer{Endpoint: netip.AddrPortFrom(netip.MustParseAddr(addr), 51820), Host: host}
	}
	nodes := func(all ...string) map[string][]netip.Addr {
		others := map[string][]netip.Addr{}
		for i, addrs := range all {
			for a := range strings.FieldsSeq(addrs) {
				others[fmt.Sprint(i)] = append(others[fmt.Sprint(i)], netip.MustParseAddr(a))
			}
		}
		return others
	}
	told := func(encrypted, clear float64) map[string]float64 {
		return map[string]float64{"korat_wireguard_host_nodes encrypted": encrypted, "korat_wireguard_host_nodes clear": clear}
	}
	for name, c := range map[string]struct {
		off    bool
		kinds  []desired.TunnelKind
		others map[string][]netip.Addr
		ends   ends
		want   map[string]float64
	}{
		"it is not asked for":    {off: true, kinds: []desired.TunnelKind{v4}, others: nodes("192.0.2.1"), ends: ends{end(v4, 1): at("192.0.2.1", true)}, want: map[string]float64{}},
		"alone":                  {kinds: []desired.TunnelKind{v4}, want: told(0, 0)},
		"one is proved, one not": {kinds: []desired.TunnelKind{v4}, others: nodes("192.0.2.1", "192.0.2.2"), ends: ends{end(v4, 1): at("192.0.2.1", true), end(v4, 2): at("192.0.2.2", false)}, want: told(1, 1)},
		"one has no key":         {kinds: []desired.TunnelKind{v4}, others: nodes("192.0.2.1", "192.0.2.2"), ends: ends{end(v4, 1): at("192.0.2.1", true)}, want: told(1, 1)},
		"by the second end of two": {kinds: []desired.TunnelKind{v4, desired.WireGuard4Odd}, others: nodes("192.0.2.1"), ends: ends{
			end(v4, 1): at("192.0.2.1", false), end(desired.WireGuard4Odd, 2): at("192.0.2.1", true),
		}, want: told(1, 0)},
		"in both families": {kinds: []desired.TunnelKind{v4, v6}, others: nodes("192.0.2.1 2001:db8::1"), ends: ends{
			end(v4, 1): at("192.0.2.1", true), end(v6, 2): at("2001:db8::1", true),
		}, want: told(1, 0)},
		"in one family of two": {kinds: []desired.TunnelKind{v4, v6}, others: nodes("192.0.2.1 2001:db8::1"), ends: ends{
			end(v4, 1): at("192.0.2.1", true), end(v6, 2): at("2001:db8::1", false),
		}, want: told(0, 1)},
		"a family that nothing is encrypted of": {kinds: []desired.TunnelKind{v4}, others: nodes("192.0.2.1 2001:db8::1", "2001:db8::2"), ends: ends{end(v4, 1): at("192.0.2.1", true)}, want: told(1, 0)},
		"an address further on":                 {kinds: []desired.TunnelKind{v4}, others: nodes("192.0.2.1 198.51.100.1"), ends: ends{end(v4, 1): at("192.0.2.1", true)}, want: told(1, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			n := &tunnels{hosts: !c.off, ends: c.ends, wanted: map[desired.TunnelKind]desired.TunnelDevice{desired.VXLAN6: {}}}
			for _, kind := range c.kinds {
				n.wanted[kind] = desired.TunnelDevice{Kind: kind}
			}
			registry := prometheus.NewRegistry()
			registry.MustRegister(hostMetrics{n, func() map[string][]netip.Addr { return c.others }})
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]float64{}
			for _, f := range families {
				for _, m := range f.GetMetric() {
					got[f.GetName()+" "+m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
