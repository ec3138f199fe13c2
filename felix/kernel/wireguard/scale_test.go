package wireguard_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/koratnet/korat/felix/desired"
)

// manyNodes returns what is desired of n nodes.
func manyNodes(first, n int) desired.Delta {
	d := desired.Delta{EncryptedPeers: map[desired.EncryptedEnd]*desired.EncryptedPeer{}}
	for i := first; i < first+n; i++ {
		p := &desired.EncryptedPeer{Endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), port)}
		for b := range 4 {
			p.Prefixes = append(p.Prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100 + byte(i>>8), byte(i), byte(b) << 6}), 26))
		}
		key := sha256.Sum256(fmt.Append(nil, "node ", i))
		key[31] &= 127 // the highest bit is of no meaning, and reads as 0
		d.EncryptedPeers[desired.EncryptedEnd{Kind: desired.WireGuard4, Key: key}] = p
	}
	return d
}

// with adds what is desired of the node's own end.
func (s *site) with(d desired.Delta) desired.Delta {
	own := s.own()
	d.Tunnels, d.Complete = own.Tunnels, true
	return d
}

// BenchmarkThousandNodes tells of 1,000 nodes, from nothing.
func BenchmarkThousandNodes(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		_, all := sites(b, desired.WireGuard4, 1)
		all[0].apply(b, all[0].own())
		d := manyNodes(0, 1000)
		b.StartTimer()
		all[0].apply(b, d)
	}
}

// BenchmarkOneNodeMore adds one node to 1,000.
func BenchmarkOneNodeMore(b *testing.B) {
	_, all := sites(b, desired.WireGuard4, 1)
	all[0].apply(b, all[0].with(manyNodes(0, 1000)))
	next := 1000
	for b.Loop() {
		all[0].apply(b, manyNodes(next, 1))
		next++
	}
}

// TestAThousandNodesAreAdoptedAndLeaveNothing: and blocks that go from each to the
// next are where they belong.
func TestAThousandNodesAreAdoptedAndLeaveNothing(t *testing.T) {
	_, all := sites(t, desired.WireGuard4, 1)
	s := all[0]
	d := manyNodes(0, 1000)
	s.apply(t, s.with(d))
	s.has(t, d)
	ends := slices.SortedFunc(maps.Keys(d.EncryptedPeers), func(a, b desired.EncryptedEnd) int { return slices.Compare(a.Key[:], b.Key[:]) })
	moved := desired.Delta{EncryptedPeers: map[desired.EncryptedEnd]*desired.EncryptedPeer{}}
	for i, end := range ends {
		next := d.EncryptedPeers[ends[(i+1)%len(ends)]]
		moved.EncryptedPeers[end] = &desired.EncryptedPeer{Endpoint: d.EncryptedPeers[end].Endpoint, Prefixes: next.Prefixes[i%4:]}
	}
	s.apply(t, moved)
	s.has(t, moved)
	s.tunnels = s.open(t)
	s.apply(t, s.with(moved))
	s.has(t, moved)
	for end := range moved.EncryptedPeers {
		moved.EncryptedPeers[end] = nil
	}
	s.apply(t, moved)
	s.has(t, desired.Delta{})
}

// has fails the test if the interface knows anybody but those of d, or anything else
// of them.
func (s *site) has(t *testing.T, d desired.Delta) {
	t.Helper()
	have, err := s.tunnels.Known(s.kind)
	if err != nil {
		t.Fatal(err)
	}
	wrong := 0
	for end, p := range d.EncryptedPeers {
		if h := have[end.Key]; h.Endpoint != p.Endpoint || !slices.Equal(h.Prefixes, p.Prefixes) {
			if wrong++; wrong < 4 {
				t.Errorf("the interface has %+v of %s, want %+v", h, end.Key, *p)
			}
		}
	}
	if len(have) != len(d.EncryptedPeers) || wrong > 0 {
		t.Errorf("the interface knows %d nodes, of %d wanted %d are wrong", len(have), len(d.EncryptedPeers), wrong)
	}
}
