package v1

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// unreachable are the ranges that a CIDR must not touch, stated a second time
// and in Go, as the judge of the rules in the schema.
var unreachable = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/127"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// goodCIDR says whether the schema should accept a text as a CIDR.
func goodCIDR(text string) bool {
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() || p.Masked().String() != text {
		return false
	}
	for _, u := range unreachable {
		if u.Overlaps(p) {
			return false
		}
	}
	return true
}

func TestCIDRRulesAgreeWithNetip(t *testing.T) {
	block := loadSchemas(t)["Block"]
	ctx := t.Context()
	rapid.Check(t, func(t *rapid.T) {
		text := drawCIDR(t)
		errs := block.create(ctx, object{
			"apiVersion": GroupVersion.String(),
			"kind":       "Block",
			"metadata":   object{"name": "any"},
			"spec":       object{"cidr": text, "pool": "p", "node": "n", "nodeUID": "u", "journalID": "j"},
		})
		if got, want := len(errs) == 0, goodCIDR(text); got != want {
			t.Fatalf("%q accepted: %t, want %t: %v", text, got, want, errs)
		}
	})
}

func TestNetRulesAgreeWithNetip(t *testing.T) {
	set := loadSchemas(t)["GlobalNetworkSet"]
	ctx := t.Context()
	rapid.Check(t, func(t *rapid.T) {
		text := drawCIDR(t)
		errs := set.create(ctx, object{
			"apiVersion": GroupVersion.String(),
			"kind":       "GlobalNetworkSet",
			"metadata":   object{"name": "any"},
			"spec":       object{"nets": []any{text}},
		})
		p, err := netip.ParsePrefix(text)
		good := err == nil && !p.Addr().Is4In6() && p.Masked().String() == text
		if got := len(errs) == 0; got != good {
			t.Fatalf("%q accepted: %t, want %t: %v", text, got, good, errs)
		}
	})
}

func TestIPAddressRulesAgreeWithNetip(t *testing.T) {
	host := loadSchemas(t)["HostEndpoint"]
	ctx := t.Context()
	rapid.Check(t, func(t *rapid.T) {
		text := strings.TrimSuffix(drawCIDR(t), "/32")
		errs := host.create(ctx, object{
			"apiVersion": GroupVersion.String(),
			"kind":       "HostEndpoint",
			"metadata":   object{"name": "any"},
			"spec":       object{"node": "n", "expectedIPs": []any{text}},
		})
		a, err := netip.ParseAddr(text)
		good := err == nil && a.Zone() == "" && !a.Is4In6() && a.String() == text
		if got := len(errs) == 0; got != good {
			t.Fatalf("%q accepted: %t, want %t: %v", text, got, good, errs)
		}
	})
}

// drawCIDR draws texts that are, or nearly are, CIDRs: often beside or around
// the unreachable ranges, sometimes with host bits or in another spelling.
func drawCIDR(t *rapid.T) string {
	p := drawPrefix(t)
	if rapid.Bool().Draw(t, "near unreachable") {
		addr := rapid.SampledFrom(unreachable).Draw(t, "range").Addr()
		bits := rapid.IntRange(0, addr.BitLen()).Draw(t, "near bits")
		for range rapid.IntRange(0, 2).Draw(t, "steps back") {
			if addr.Prev().IsValid() {
				addr = addr.Prev()
			}
		}
		p = netip.PrefixFrom(addr, bits)
	}
	switch rapid.IntRange(0, 9).Draw(t, "spelling") {
	case 0:
		return p.Addr().StringExpanded() + p.String()[len(p.Addr().String()):]
	case 1:
		return p.Addr().String()
	case 2:
		return p.String()
	case 3:
		return rapid.StringMatching(`[0-9a-f.:/%]{0,43}`).Draw(t, "text")
	default:
		return p.Masked().String()
	}
}
