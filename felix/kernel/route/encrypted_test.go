package route_test

import (
	"net/netip"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// encryptedRoute leads into the tunnel of WireGuard, whose part an end of a veth plays.
func encryptedRoute(prefix string) desired.Delta {
	p := netip.MustParsePrefix(prefix)
	kind := desired.WireGuard4
	if p.Addr().Is6() {
		kind = desired.WireGuard6
	}
	return desired.Delta{Routes: map[netip.Prefix]*desired.Route{p: {Prefix: p, Kind: desired.Tunneled, Interface: kind.Device()}}}
}

// TestAnEncryptedRouteIsClosedWithoutItsInterface: what led there in clear does not
// stay, and no other route takes its place.
func TestAnEncryptedRouteIsClosedWithoutItsInterface(t *testing.T) {
	for prefix, kernel := range map[string]struct{ device, clear, closed, open string }{
		"10.0.1.0/26":  {"wg4-korat", "10.0.1.0/26 via 192.0.2.2", "type 7 10.0.1.0/26", "10.0.1.0/26 dev wg4-korat scope link"},
		"fd00:1::/122": {"wg6-korat", "fd00:1::/122 via 2001:db8::2 metric 1024", "type 7 fd00:1::/122 metric 1024", "fd00:1::/122 dev wg6-korat metric 1024"},
	} {
		t.Run(prefix, func(t *testing.T) {
			n := node(t)
			r := begin(t, n)
			hop := "192.0.2.2"
			if kernel.device == "wg6-korat" {
				hop = "2001:db8::2"
			}
			mustApply(t, r, routes(t, prefix+" via "+hop))
			compare(t, n, kernel.clear)
			mustApply(t, r, encryptedRoute(prefix))
			compare(t, n, kernel.closed)

			kerneltest.Pod(n, kernel.device)
			r.LinkChanged(kernel.device)
			mustApply(t, r, desired.Delta{})
			compare(t, n, kernel.open)

			n.Down(kernel.device)
			r.LinkChanged(kernel.device)
			mustApply(t, r, desired.Delta{})
			compare(t, n, kernel.closed)
			if closed := r.Closed(); len(closed) > 0 {
				t.Errorf("endpoints are closed for it: %v", closed)
			}

			n.Up(kernel.device)
			r.LinkChanged(kernel.device)
			mustApply(t, r, desired.Delta{})
			compare(t, n, kernel.open)
			mustApply(t, r, routes(t, prefix+" via "+hop))
			compare(t, n, kernel.clear)
		})
	}
}
