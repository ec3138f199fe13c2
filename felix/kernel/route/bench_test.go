package route_test

import (
	"net/netip"
	"testing"

	"github.com/koratnet/korat/felix/desired"
)

// fill installs n learned routes and one of a pod.
func fill(b *testing.B, size int) (apply func(desired.Delta), look func()) {
	b.Helper()
	n := node(b)
	r := begin(b, n)
	d := routes(b, "192.168.0.1/32 dev kor1")
	for i := range size {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		d.Routes[p] = &desired.Route{Prefix: p, Kind: desired.Via, NextHops: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}
	}
	mustApply(b, r, d)
	return func(change desired.Delta) { mustApply(b, r, change) }, func() {
		r.LinkChanged("kor1")
		mustApply(b, r, desired.Delta{})
	}
}

func BenchmarkLinkChanged(b *testing.B) {
	_, look := fill(b, 100_000)
	for b.Loop() {
		look()
	}
}

func BenchmarkOneRoute(b *testing.B) {
	change, _ := fill(b, 100_000)
	ds := []desired.Delta{routes(b, "192.168.0.2/32 dev kor1"), routes(b, "192.168.0.2/32 dev kor2")}
	for i := 0; b.Loop(); i++ {
		change(ds[i%2])
	}
}
