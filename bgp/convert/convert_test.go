package convert_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/convert"
)

var compare = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}

func ptr[T any](v T) *T { return &v }

func TestAFilterIsConvertedWhole(t *testing.T) {
	o := &koratv1.BGPFilter{ObjectMeta: metav1.ObjectMeta{Name: "f"}, Spec: koratv1.BGPFilterSpec{
		Import: []koratv1.BGPFilterRule{{
			Action: koratv1.FilterAccept, Family: koratv1.FamilyIPv6, Source: koratv1.SourceLearned, PeerType: koratv1.PeerTypeEBGP,
			Interfaces: []string{"eth*"}, Communities: []koratv1.Community{"65000:1", "1:2:4294967295"}, ASPathPrefix: []koratv1.ASNumber{65001, 65002},
			NotPrefixes: []koratv1.PrefixMatch{{CIDR: "fd00::/8", MinLength: ptr[int32](48)}},
			Set: &koratv1.RouteOperations{
				AddCommunities: []koratv1.Community{"65535:65535", "3:4:5"}, RemoveCommunities: []koratv1.Community{"0:0"},
				PrependASPath: []koratv1.ASNumber{7, 7}, LocalPreference: ptr[int64](4294967295), MED: ptr[int64](0),
			},
		}},
		Export: []koratv1.BGPFilterRule{{Action: koratv1.FilterReject}},
	}}
	want := bgp.Filter{
		Name: "f",
		Import: []bgp.FilterRule{{
			Accept: true, Families: bgp.IPv6, Source: bgp.SourceLearned, PeerType: bgp.PeerExternal, Interfaces: []string{"eth*"},
			Communities: []bgp.Community{65000<<16 | 1}, LargeCommunities: []bgp.LargeCommunity{{Global: 1, Local1: 2, Local2: 4294967295}},
			ASPath:      []uint32{65001, 65002},
			NotPrefixes: []bgp.PrefixRange{{Prefix: netip.MustParsePrefix("fd00::/8"), Min: 48, Max: 128}},
			Set: bgp.Operations{
				AddCommunities: []bgp.Community{0xffffffff}, AddLargeCommunities: []bgp.LargeCommunity{{Global: 3, Local1: 4, Local2: 5}},
				RemoveCommunities: []bgp.Community{0}, Prepend: []uint32{7, 7}, LocalPref: ptr[uint32](4294967295), MED: ptr[uint32](0),
			},
		}},
		Export: []bgp.FilterRule{{}},
	}
	got, problem := convert.Filter(o)
	if diff := cmp.Diff(want, got, compare); diff != "" || problem != "" {
		t.Errorf("problem %q, (-want +got):\n%s", problem, diff)
	}
}

func TestLengthsOfAPrefixMatchAreThoseOfRouters(t *testing.T) {
	for name, c := range map[string]struct {
		match   koratv1.PrefixMatch
		min     uint8
		max     uint8
		problem string
	}{
		"none":                {koratv1.PrefixMatch{CIDR: "10.0.0.0/8"}, 8, 8, ""},
		"a least":             {koratv1.PrefixMatch{CIDR: "10.0.0.0/8", MinLength: ptr[int32](24)}, 24, 32, ""},
		"a greatest":          {koratv1.PrefixMatch{CIDR: "10.0.0.0/8", MaxLength: ptr[int32](24)}, 8, 24, ""},
		"both":                {koratv1.PrefixMatch{CIDR: "::/0", MinLength: ptr[int32](0), MaxLength: ptr[int32](64)}, 0, 64, ""},
		"a least too short":   {koratv1.PrefixMatch{CIDR: "10.0.0.0/8", MinLength: ptr[int32](7)}, 0, 0, "spec.export[0].prefixes[0].minLength: 7: expected a length of prefixes inside 10.0.0.0/8, 8 to 32"},
		"a greatest too long": {koratv1.PrefixMatch{CIDR: "10.0.0.0/8", MaxLength: ptr[int32](33)}, 0, 0, "spec.export[0].prefixes[0].maxLength: 33: expected a length of prefixes inside 10.0.0.0/8, 8 to 32"},
		"no prefix":           {koratv1.PrefixMatch{CIDR: "10/8"}, 0, 0, `spec.export[0].prefixes[0].cidr: "10/8": expected a prefix such as 10.0.0.0/8`},
	} {
		t.Run(name, func(t *testing.T) {
			f, problem := convert.Filter(&koratv1.BGPFilter{Spec: koratv1.BGPFilterSpec{
				Export: []koratv1.BGPFilterRule{{Action: koratv1.FilterAccept, Prefixes: []koratv1.PrefixMatch{c.match}}},
			}})
			if problem != c.problem {
				t.Fatalf("problem is %q, want %q", problem, c.problem)
			}
			if problem == "" && (f.Export[0].Prefixes[0].Min != c.min || f.Export[0].Prefixes[0].Max != c.max) {
				t.Errorf("got %+v", f.Export[0].Prefixes[0])
			}
		})
	}
}

func TestSessionsOfAPeer(t *testing.T) {
	second := &metav1.Duration{Duration: time.Second}
	got := convert.Session(&koratv1.BGPPeerSpec{
		Address: "192.168.1.1", Port: 1179, ASNumber: 4200000001, LocalASNumber: 65100, AllowOwnAS: 1,
		Advertise: []koratv1.Advertise{koratv1.AdvertiseHosts, koratv1.AdvertiseServices}, Families: []koratv1.IPFamily{koratv1.FamilyIPv4, koratv1.FamilyIPv6},
		NextHop: koratv1.NextHopKeep, TTLSecurity: 2, MaxPrefixes: 10, ReplaceAS: true, RemovePrivateAS: true, AddPaths: true,
		HoldTime: &metav1.Duration{Duration: 9 * time.Second}, GracefulRestart: &koratv1.PeerGracefulRestart{LongLivedStaleTime: second},
		BFD: &koratv1.BFD{TransmitInterval: second, Hops: 3},
	})
	want := bgp.Peer{
		Addr: netip.MustParseAddr("192.168.1.1"), Port: 1179, ASN: 4200000001, LocalASN: 65100, AllowOwnAS: 1,
		Advertise: bgp.Hosts | bgp.Services, Families: bgp.IPv4 | bgp.IPv6, NextHop: bgp.NextHopKeep, GTSM: 2, MaxPrefixes: 10,
		ReplaceAS: true, RemovePrivateAS: true, AddPaths: true, Hold: 9 * time.Second, Keepalive: 3 * time.Second, LongLived: time.Second,
		BFD: bgp.BFD{Enabled: true, Transmit: time.Second, Receive: 300 * time.Millisecond, Multiplier: 3, Multihop: true, MinTTL: 253},
	}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for capability, want := range map[koratv1.Switch]bool{"": false, koratv1.SwitchEnabled: false, koratv1.SwitchDisabled: true} {
		if s := convert.Session(&koratv1.BGPPeerSpec{AddPathsCapability: capability}); s.OnePath != want {
			t.Errorf("addPathsCapability %q: one path %t, want %t", capability, s.OnePath, want)
		}
	}
	link := convert.Session(&koratv1.BGPPeerSpec{Interface: "eth1", BFD: &koratv1.BFD{}})
	if link.Addr.IsValid() || link.Families != bgp.IPv4|bgp.IPv6 || link.BFD.Multihop || link.BFD.MinTTL != 255 {
		t.Errorf("a session at an interface is %+v", link)
	}
}
