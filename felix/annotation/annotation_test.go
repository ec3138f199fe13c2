package annotation

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestWhatPodsAndNamespacesAskFor(t *testing.T) {
	for name, c := range map[string]struct {
		pod, namespace map[string]string
		want           Wishes
	}{
		"nothing": {},
		"pools of the pod go before those of its namespace": {
			pod:       map[string]string{IPv4Pools: "b, a"},
			namespace: map[string]string{IPv4Pools: "c", IPv6Pools: "d", IPFamilies: "IPv6,IPv4"},
			want:      Wishes{Pools4: []string{"b", "a"}, Pools6: []string{"d"}, Families: []int{32, 128}},
		},
		"a namespace cannot ask for what one pod only can have": {
			namespace: map[string]string{IPAddresses: "10.0.0.1", MAC: "nonsense", StickyAddress: "1m"},
		},
		"all there is": {
			pod: map[string]string{
				IPAddresses: "fd00::7,10.0.0.7", StickyAddress: "5m", MAC: "02:00:0a:f4:00:07",
				AllowedSources: "192.0.2.0/24, 10.9.0.0/16", FloatingAddresses: "203.0.113.7", IngressBandwidth: "10M", EgressBandwidth: "1Gi",
			},
			want: Wishes{
				Addrs: []netip.Addr{addr("10.0.0.7"), addr("fd00::7")}, Keep: 5 * time.Minute, MAC: net.HardwareAddr{2, 0, 10, 244, 0, 7},
				Sources:  []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("192.0.2.0/24")},
				Floating: []netip.Addr{addr("203.0.113.7")}, Ingress: 10_000_000, Egress: 1 << 30,
			},
		},
		"sticky without a time": {pod: map[string]string{StickyAddress: "true"}, want: Wishes{Keep: DefaultKeep}},
		"not sticky":            {pod: map[string]string{StickyAddress: "false"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(c.pod, c.namespace)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestABadValueNamesItsAnnotation(t *testing.T) {
	for name, values := range map[string][]string{
		IPv4Pools:         {"", "a,,b", "A_b", "a,a", strings.Repeat("a,", 70) + "a"},
		IPAddresses:       {"", "10.0.0.1,10.0.0.2", "10.0.0.256", "10.0.0.1/32", "127.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "fe80::1", "224.0.0.1", "0.0.0.0"},
		IPFamilies:        {"", "ipv4", "IPv5"},
		StickyAddress:     {"", "yes", "-1s", "25h", "0s"},
		MAC:               {"", "01:00:00:00:00:01", "00:00:00:00:00:00", "02:00:0a:f4:00:07:00:01"},
		AllowedSources:    {"", "10.0.0.1/8", "10.0.0.1", "::ffff:10.0.0.0/104"},
		FloatingAddresses: {"", "nowhere"},
		IngressBandwidth:  {"", "fast", "-1", "999", "2T", "1e-2000000000", "1E+2000000000", "1" + strings.Repeat("0", 1000)},
		EgressBandwidth:   {"1.5.5M"},
	} {
		for _, v := range values {
			_, err := Parse(map[string]string{name: v}, nil)
			if err == nil || !strings.Contains(err.Error(), "annotation "+name+" of the pod") || !strings.Contains(err.Error(), "expected") {
				t.Errorf("%s %q: got %v, want an error that names the annotation and what was expected", name, v, err)
			}
		}
	}
	_, err := Parse(map[string]string{IPAddresses: "10.0.0.1", IPFamilies: "IPv6"}, nil)
	if err == nil || !strings.Contains(err.Error(), IPAddresses) || !strings.Contains(err.Error(), IPFamilies) {
		t.Errorf("an address of a family that is not wanted: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(IPAddresses, "10.0.0.1,fd00::1")
	f.Add(IngressBandwidth, "1e9")
	f.Add(EgressBandwidth, "1e-2000000000")
	f.Fuzz(func(t *testing.T, name, value string) {
		w, err := Parse(map[string]string{name: value}, nil)
		if err == nil && len(w.Addrs) > 2 {
			t.Errorf("%s %q asks for %v", name, value, w.Addrs)
		}
	})
}
