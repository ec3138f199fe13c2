package gobgp

import (
	"math"
	"net/netip"
	"slices"
	"testing"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

func TestWeightsFollowSpeeds(t *testing.T) {
	for name, tc := range map[string]struct {
		speeds []float32
		want   []uint8
	}{
		"one":              {[]float32{10}, nil},
		"equal":            {[]float32{10, 10}, nil},
		"one is not told":  {[]float32{10, 0, 5}, nil},
		"one is no number": {[]float32{10, float32(math.NaN())}, nil},
		"infinite":         {[]float32{10, float32(math.Inf(1))}, nil},
		"negative":         {[]float32{10, -1}, nil},
		"half":             {[]float32{10e9, 10e9, 5e9}, []uint8{255, 255, 128}},
		"a third":          {[]float32{3, 1}, []uint8{3, 1}},
		"next to nothing":  {[]float32{1e12, 1}, []uint8{255, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := weights(tc.speeds); !slices.Equal(got, tc.want) {
				t.Errorf("weights %v, want %v", got, tc.want)
			}
		})
	}
}

// TestItem74NextHops: equal paths are several next hops, with weights where the
// neighbours tell the bandwidth of their links; what is kept over a long restart is
// used only when there is nothing else.
func TestItem74NextHops(t *testing.T) {
	prefix := netip.MustParsePrefix("203.0.113.0/24")
	nlri, err := packet.NewIPAddrPrefix(prefix)
	if err != nil {
		t.Fatal(err)
	}
	path := func(from, hop string, speed float32, communities ...uint32) *apiutil.Path {
		nextHop, err := packet.NewPathAttributeNextHop(netip.MustParseAddr(hop))
		if netip.MustParseAddr(hop).Is6() {
			var p packet.PathAttributeInterface
			p, err = packet.NewPathAttributeMpReachNLRI(packet.RF_IPv4_UC, []packet.PathNLRI{{NLRI: nlri}}, netip.MustParseAddr(hop))
			if err != nil {
				t.Fatal(err)
			}
			return &apiutil.Path{Nlri: nlri, PeerAddress: netip.MustParseAddr(from), PeerASN: 65001, Attrs: []packet.PathAttributeInterface{p}}
		}
		if err != nil {
			t.Fatal(err)
		}
		out := &apiutil.Path{Nlri: nlri, PeerAddress: netip.MustParseAddr(from), PeerASN: 65001, Attrs: []packet.PathAttributeInterface{nextHop}}
		if speed != 0 {
			out.Attrs = append(out.Attrs, packet.NewPathAttributeExtendedCommunities([]packet.ExtendedCommunityInterface{
				packet.NewLinkBandwidthExtended(65001, speed),
			}))
		}
		if len(communities) > 0 {
			out.Attrs = append(out.Attrs, packet.NewPathAttributeCommunities(communities))
		}
		return out
	}
	stale := uint32(packet.COMMUNITY_LLGR_STALE)
	for name, tc := range map[string]struct {
		paths   []*apiutil.Path
		want    string
		weights []uint8
	}{
		"two": {[]*apiutil.Path{path("192.0.2.2", "192.0.2.2", 0), path("192.0.2.1", "192.0.2.1", 0)}, "192.0.2.1 192.0.2.2", nil},
		"by bandwidth": {
			[]*apiutil.Path{path("192.0.2.2", "192.0.2.2", 1e9), path("192.0.2.1", "192.0.2.1", 3e9)}, "192.0.2.1 192.0.2.2", []uint8{3, 1},
		},
		"one next hop from two": {[]*apiutil.Path{path("192.0.2.2", "192.0.2.9", 0), path("192.0.2.1", "192.0.2.9", 0)}, "192.0.2.9", nil},
		"a stale one beside a fresh": {
			[]*apiutil.Path{path("192.0.2.2", "192.0.2.2", 0, stale), path("192.0.2.1", "192.0.2.1", 0)}, "192.0.2.1", nil,
		},
		"only a stale one":          {[]*apiutil.Path{path("192.0.2.2", "192.0.2.2", 0, stale)}, "192.0.2.2", nil},
		"over IPv6":                 {[]*apiutil.Path{path("2001:db8::1", "2001:db8::1", 0)}, "2001:db8::1", nil},
		"link-local, on its link":   {[]*apiutil.Path{path("fe80::1%eth0", "fe80::1", 0)}, "fe80::1%eth0", nil},
		"link-local, on none":       {[]*apiutil.Path{path("2001:db8::1", "fe80::1", 0)}, "", nil},
		"ourselves are no next hop": {[]*apiutil.Path{path("192.0.2.2", "192.0.2.10", 0)}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLearned()
			l.own = map[netip.Addr]struct{}{netip.MustParseAddr("192.0.2.10"): {}}
			l.update(tc.paths)
			got, hops := l.at(prefix), ""
			for _, h := range got.NextHops {
				if hops != "" {
					hops += " "
				}
				hops += h.String()
			}
			if hops != tc.want || !slices.Equal(got.Weights, tc.weights) {
				t.Errorf("learned %+v, want next hops %q with weights %v", got, tc.want, tc.weights)
			}
		})
	}
}
