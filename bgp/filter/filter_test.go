package filter

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/koratnet/korat/bgp"
)

func within(prefix string, lo, hi uint8) []bgp.PrefixRange {
	return []bgp.PrefixRange{{Prefix: netip.MustParsePrefix(prefix), Min: lo, Max: hi}}
}

func TestRulesMatch(t *testing.T) {
	p := Path{
		Prefix: netip.MustParsePrefix("10.1.2.0/24"), ASPath: []uint32{65001, 65002}, Links: []string{"eth0"},
		Communities:      []bgp.Community{1, 2},
		LargeCommunities: []bgp.LargeCommunity{{Global: 1, Local1: 2, Local2: 3}},
	}
	for name, tc := range map[string]struct {
		rule bgp.FilterRule
		want bool
	}{
		"an empty rule":               {bgp.FilterRule{}, true},
		"the family":                  {bgp.FilterRule{Families: bgp.IPv4}, true},
		"another family":              {bgp.FilterRule{Families: bgp.IPv6}, false},
		"inside, of a right length":   {bgp.FilterRule{Prefixes: within("10.0.0.0/8", 16, 24)}, true},
		"inside, too long":            {bgp.FilterRule{Prefixes: within("10.0.0.0/8", 8, 23)}, false},
		"inside, too short":           {bgp.FilterRule{Prefixes: within("10.0.0.0/8", 25, 32)}, false},
		"outside":                     {bgp.FilterRule{Prefixes: within("10.2.0.0/16", 0, 32)}, false},
		"wider than the range":        {bgp.FilterRule{Prefixes: within("10.1.2.0/25", 0, 32)}, false},
		"not inside":                  {bgp.FilterRule{NotPrefixes: within("10.2.0.0/16", 0, 32)}, true},
		"inside what it must not be":  {bgp.FilterRule{NotPrefixes: within("10.1.0.0/16", 0, 32)}, false},
		"learned":                     {bgp.FilterRule{Source: bgp.SourceLearned}, true},
		"own":                         {bgp.FilterRule{Source: bgp.SourceOwn}, false},
		"the type of session":         {bgp.FilterRule{PeerType: bgp.PeerExternal}, true},
		"the other type":              {bgp.FilterRule{PeerType: bgp.PeerInternal}, false},
		"a link by pattern":           {bgp.FilterRule{Interfaces: []string{"bond*", "*h0"}}, true},
		"another link":                {bgp.FilterRule{Interfaces: []string{"eth"}}, false},
		"all communities":             {bgp.FilterRule{Communities: []bgp.Community{2, 1}}, true},
		"a community too many":        {bgp.FilterRule{Communities: []bgp.Community{1, 3}}, false},
		"a large community":           {bgp.FilterRule{LargeCommunities: p.LargeCommunities}, true},
		"another large community":     {bgp.FilterRule{LargeCommunities: []bgp.LargeCommunity{{Global: 9}}}, false},
		"the begin of the path":       {bgp.FilterRule{ASPath: []uint32{65001}}, true},
		"not the begin of the path":   {bgp.FilterRule{ASPath: []uint32{65002}}, false},
		"more than the path":          {bgp.FilterRule{ASPath: []uint32{65001, 65002, 65003}}, false},
		"one condition of two is not": {bgp.FilterRule{Families: bgp.IPv4, ASPath: []uint32{1}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, ok, by := Ask([]bgp.Filter{{Name: "f", Import: []bgp.FilterRule{tc.rule}}}, Import, bgp.PeerExternal, p)
			want := ""
			if tc.want {
				want = "filter f rule 1"
			}
			if ok == tc.want || by != want {
				t.Errorf("let through %t by %q, want %t by %q", ok, by, !tc.want, want)
			}
		})
	}
}

func TestTheFirstRuleThatMatchesDecides(t *testing.T) {
	med, pref := uint32(7), uint32(200)
	filters := []bgp.Filter{
		{Name: "a", Export: []bgp.FilterRule{{Source: bgp.SourceOwn}}},
		{Name: "b", Import: []bgp.FilterRule{{}}, Export: []bgp.FilterRule{
			{Families: bgp.IPv6},
			{Accept: true, Set: bgp.Operations{
				AddCommunities: []bgp.Community{3, 1}, RemoveCommunities: []bgp.Community{1, 2},
				Prepend: []uint32{5, 6}, MED: &med, LocalPref: &pref,
			}},
			{},
		}},
	}
	in := Path{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Communities: []bgp.Community{1, 2, 4}, ASPath: []uint32{9}}
	got, ok, by := Ask(filters, Export, bgp.PeerInternal, in)
	want := Path{
		Prefix: in.Prefix, Communities: []bgp.Community{4, 3, 1}, ASPath: []uint32{5, 6, 9}, MED: &med, LocalPref: &pref,
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" || !ok || by != "filter b rule 2" {
		t.Errorf("let through %t by %q:\n%s", ok, by, diff)
	}
	if len(in.Communities) != 3 || in.Communities[0] != 1 {
		t.Errorf("the path that was asked about changed: %v", in.Communities)
	}
}
