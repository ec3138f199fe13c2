package vip_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/vip"
	"github.com/koratnet/korat/policy/selector"
)

var compare = cmp.Options{cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()}

func pool(name, cidr string, change ...func(*ipam.Pool)) ipam.Pool {
	p := ipam.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr), Uses: ipam.LoadBalancer}
	for _, c := range change {
		c(&p)
	}
	return p
}

// service returns a service of an age in a short notation: "has=ADDR want=ADDR
// pool=NAME team=NAME", families "4", "6" and "lenient".
func service(age int, name, words string) vip.Service {
	s := vip.Service{Name: name, Created: time.Unix(int64(age), 0), Known: true}
	for _, w := range strings.Fields(words) {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "4":
			s.Families = append(s.Families, 32)
		case "6":
			s.Families = append(s.Families, 128)
		case "lenient":
			s.Lenient = true
		case "has":
			s.Has = append(s.Has, netip.MustParseAddr(value))
		case "want":
			s.Requested = append(s.Requested, netip.MustParseAddr(value))
		case "pool":
			s.Pools = append(s.Pools, value)
		case "team":
			s.Namespace = selector.MakeLabels(map[string]string{"team": value})
		default:
			panic("unknown word " + w)
		}
	}
	return s
}

func text(g vip.Grant) string {
	var words []string
	for _, a := range g.Addrs {
		words = append(words, a.String())
	}
	if g.Reason != "" {
		words = append(words, string(g.Reason))
	}
	return strings.Join(words, " ")
}

func TestWhoGetsWhichAddress(t *testing.T) {
	v4, v6 := pool("v4", "192.0.2.0/30"), pool("v6", "2001:db8::/126")
	disabled := func(p *ipam.Pool) { p.Disabled = true }
	manual := func(p *ipam.Pool) { p.Manual = true }
	forPods := func(p *ipam.Pool) { p.Uses = 0 }
	forBoth := func(p *ipam.Pool) { p.Uses = ipam.Pods | ipam.LoadBalancer }
	ofTeamA := func(p *ipam.Pool) { p.Namespaces = selector.Equals("team", "a") }
	for name, c := range map[string]struct {
		services []vip.Service
		pools    []ipam.Pool
		reserved string
		want     []string
	}{
		"the lowest free one, the older first": {
			[]vip.Service{service(2, "a/new", "4"), service(1, "a/old", "4")},
			[]ipam.Pool{v4},
			"",
			[]string{"192.0.2.1", "192.0.2.0"},
		},
		"what a service has it keeps": {
			[]vip.Service{service(1, "a/x", "4"), service(2, "a/y", "4 has=192.0.2.0")},
			[]ipam.Pool{v4},
			"",
			[]string{"192.0.2.1", "192.0.2.0"},
		},
		"of two with one address the older has it": {
			[]vip.Service{service(2, "a/y", "4 has=192.0.2.0"), service(1, "a/x", "4 has=192.0.2.0")},
			[]ipam.Pool{v4},
			"",
			[]string{"192.0.2.1", "192.0.2.0"},
		},
		"who asks for an address goes before who takes any": {
			[]vip.Service{service(1, "a/x", "4"), service(2, "a/y", "4 want=192.0.2.0")},
			[]ipam.Pool{v4},
			"",
			[]string{"192.0.2.1", "192.0.2.0"},
		},
		"but not before who has it": {
			[]vip.Service{service(1, "a/x", "4 want=192.0.2.0"), service(2, "a/y", "4 has=192.0.2.0")},
			[]ipam.Pool{v4},
			"",
			[]string{"AddressTaken", "192.0.2.0"},
		},
		"a request moves a service": {
			[]vip.Service{service(1, "a/x", "4 has=192.0.2.0 want=192.0.2.3")}, []ipam.Pool{v4}, "", []string{"192.0.2.3"},
		},
		"an address outside of all pools cannot be had": {
			[]vip.Service{service(1, "a/x", "4 want=198.51.100.1")}, []ipam.Pool{v4}, "", []string{"Unavailable"},
		},
		"nor one that pods may get": {
			[]vip.Service{service(1, "a/x", "4 want=192.0.2.1"), service(2, "a/y", "4")},
			[]ipam.Pool{pool("v4", "192.0.2.0/30", forBoth)},
			"",
			[]string{"Unavailable", "NoPool"},
		},
		"reserved addresses are not handed out": {
			[]vip.Service{service(1, "a/x", "4"), service(2, "a/y", "4"), service(3, "a/z", "4 want=192.0.2.0")},
			[]ipam.Pool{v4},
			"192.0.2.0/31",
			[]string{"192.0.2.2", "192.0.2.3", "Unavailable"},
		},
		"a full pool says so": {
			[]vip.Service{service(1, "a/x", "4 has=192.0.2.8"), service(2, "a/y", "4")},
			[]ipam.Pool{pool("p", "192.0.2.8/32")},
			"",
			[]string{"192.0.2.8", "Exhausted"},
		},
		"the next pool by name helps out": {
			[]vip.Service{service(1, "a/x", "4 has=192.0.2.8"), service(2, "a/y", "4")},
			[]ipam.Pool{v4, pool("p", "192.0.2.8/32")},
			"",
			[]string{"192.0.2.8", "192.0.2.0"},
		},
		"a disabled pool keeps whom it has and takes nobody": {
			[]vip.Service{service(1, "a/x", "4 has=192.0.2.1"), service(2, "a/y", "4")},
			[]ipam.Pool{pool("v4", "192.0.2.0/30", disabled)},
			"",
			[]string{"192.0.2.1", "NoPool"},
		},
		"a pool that is for pods now keeps whom it has": {
			[]vip.Service{service(1, "a/x", "4 has=192.0.2.1")}, []ipam.Pool{pool("v4", "192.0.2.0/30", forPods)}, "", []string{"192.0.2.1"},
		},
		"a pool that is gone keeps nobody": {
			[]vip.Service{service(1, "a/x", "4 has=192.0.2.9")}, []ipam.Pool{v4}, "", []string{"192.0.2.0"},
		},
		"a manual pool is for those who name it": {
			[]vip.Service{service(1, "a/x", "4"), service(2, "a/y", "4 pool=v4")},
			[]ipam.Pool{pool("v4", "192.0.2.0/30", manual)},
			"",
			[]string{"NoPool", "192.0.2.0"},
		},
		"pools that are named are used in that order": {
			[]vip.Service{service(1, "a/x", "4 pool=z pool=v4")}, []ipam.Pool{v4, pool("z", "192.0.2.8/30")}, "", []string{"192.0.2.8"},
		},
		"a pool chooses namespaces": {
			[]vip.Service{service(1, "a/x", "4 team=b"), service(2, "a/y", "4 team=a")},
			[]ipam.Pool{pool("v4", "192.0.2.0/30", ofTeamA)},
			"",
			[]string{"NoPool", "192.0.2.0"},
		},
		"dual stack is both": {
			[]vip.Service{service(1, "a/x", "6 4")}, []ipam.Pool{v4, v6}, "", []string{"2001:db8:: 192.0.2.0"},
		},
		"or nothing": {
			[]vip.Service{service(1, "a/x", "4 6"), service(2, "a/y", "4")}, []ipam.Pool{v4}, "", []string{"NoPool", "192.0.2.0"},
		},
		"unless the second is not needed": {
			[]vip.Service{service(1, "a/x", "4 6 lenient")}, []ipam.Pool{v4}, "", []string{"192.0.2.0"},
		},
		"a second that is missing though there is a pool is told": {
			[]vip.Service{service(1, "a/x", "4 6 lenient")}, []ipam.Pool{v4, pool("v6", "2001:db8::/128")}, "2001:db8::/128", []string{"192.0.2.0 Exhausted"},
		},
		"what it had stays while the other family is missing": {
			[]vip.Service{service(1, "a/x", "4 6 has=192.0.2.2")}, []ipam.Pool{v4}, "", []string{"192.0.2.2 NoPool"},
		},
		"a family that is not wanted any more goes": {
			[]vip.Service{service(1, "a/x", "4 has=2001:db8:: has=192.0.2.2")}, []ipam.Pool{v4, v6}, "", []string{"192.0.2.2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var reserved []netip.Prefix
			if c.reserved != "" {
				reserved = append(reserved, netip.MustParsePrefix(c.reserved))
			}
			var got []string
			for _, g := range vip.Plan(c.services, c.pools, reserved) {
				got = append(got, text(g))
				if (g.Reason == "") != (g.Message == "") {
					t.Errorf("reason %q with message %q", g.Reason, g.Message)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("grants (-want +got):\n%s", diff)
			}
		})
	}
}

// world makes random services and pools that collide.
func world(r *rand.Rand) (services []vip.Service, pools []ipam.Pool, reserved []netip.Prefix) {
	addrs := func(n int) (list []netip.Addr) {
		for range r.IntN(n + 1) {
			list = append(list, netip.MustParseAddr(fmt.Sprintf([]string{"192.0.2.%d", "2001:db8::%d"}[r.IntN(2)], r.IntN(10))))
		}
		return list
	}
	for i := range r.IntN(4) {
		p := pool(fmt.Sprint("p", i), []string{"192.0.2.0/30", "192.0.2.4/30", "192.0.2.8/31", "2001:db8::/126", "2001:db8::4/127"}[(r.IntN(2)+2*i)%5])
		p.Disabled, p.Manual = r.IntN(8) == 0, r.IntN(8) == 0
		p.Uses = []ipam.Use{ipam.LoadBalancer, ipam.LoadBalancer, ipam.LoadBalancer, ipam.Pods | ipam.LoadBalancer}[r.IntN(4)]
		if r.IntN(4) == 0 {
			p.Namespaces = selector.Equals("team", "a")
		}
		pools = append(pools, p)
	}
	for i := range r.IntN(10) {
		s := service(r.IntN(4), fmt.Sprint("a/s", i), []string{"4", "6", "4 6", "6 4 lenient"}[r.IntN(4)])
		s.Has, s.Known = addrs(2), r.IntN(4) > 0
		if r.IntN(3) == 0 {
			s.Requested = addrs(1)
		}
		if r.IntN(4) == 0 {
			s.Pools = []string{fmt.Sprint("p", r.IntN(3))}
		}
		s.Namespace = selector.MakeLabels(map[string]string{"team": []string{"a", "b"}[r.IntN(2)]})
		services = append(services, s)
	}
	if r.IntN(3) == 0 {
		reserved = append(reserved, netip.MustParsePrefix("192.0.2.0/31"))
	}
	return services, pools, reserved
}

func TestNoAddressIsGivenTwiceAndWhatIsDecidedStays(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		services, pools, reserved := world(r)
		grants := vip.Plan(services, pools, reserved)
		holder := map[netip.Addr]string{}
		for i, g := range grants {
			s := services[i]
			for _, a := range g.Addrs {
				if other := holder[a]; other != "" {
					t.Fatalf("seed %d: %s is given to %s and %s", seed, a, other, s.Name)
				}
				holder[a] = s.Name
				if !slices.Contains(s.Families, a.BitLen()) || !slices.ContainsFunc(pools, func(p ipam.Pool) bool { return p.CIDR.Contains(a) }) {
					t.Fatalf("seed %d: %s has %s, of pools %v", seed, s.Name, a, pools)
				}
				fresh := !slices.Contains(s.Has, a)
				if fresh && slices.ContainsFunc(reserved, func(n netip.Prefix) bool { return n.Contains(a) }) {
					t.Fatalf("seed %d: %s gets %s, which is reserved", seed, s.Name, a)
				}
			}
			if g.Reason == "" && !s.Lenient && len(g.Addrs) != len(s.Families) {
				t.Fatalf("seed %d: %s wants %v and has %v without a reason", seed, s.Name, s.Families, g.Addrs)
			}
		}
		free(t, seed, services, pools, reserved, grants, holder)
		decided(t, seed, r, services, pools, reserved, grants)
	}
}

// free: who was told that pools are exhausted could have had none of their addresses.
func free(t *testing.T, seed uint64, services []vip.Service, pools []ipam.Pool, reserved []netip.Prefix, grants []vip.Grant, holder map[netip.Addr]string) {
	for i, g := range grants {
		if g.Reason != vip.Exhausted || len(services[i].Pools) > 0 {
			continue
		}
		for _, p := range pools {
			missing := slices.Contains(services[i].Families, p.CIDR.Addr().BitLen()) &&
				!slices.ContainsFunc(g.Addrs, func(a netip.Addr) bool { return a.BitLen() == p.CIDR.Addr().BitLen() })
			if !missing || p.Disabled || p.Manual || p.Namespaces != nil || p.Uses != ipam.LoadBalancer || len(services[i].Families) > 1 {
				continue
			}
			for a := p.CIDR.Addr(); p.CIDR.Contains(a); a = a.Next() {
				if holder[a] == "" && !slices.ContainsFunc(reserved, func(n netip.Prefix) bool { return n.Contains(a) }) {
					t.Fatalf("seed %d: %s got no address, and %s is free", seed, services[i].Name, a)
				}
			}
		}
	}
}

// decided: when it was written down, planning again changes nothing, in any order.
func decided(t *testing.T, seed uint64, r *rand.Rand, services []vip.Service, pools []ipam.Pool, reserved []netip.Prefix, grants []vip.Grant) {
	order := r.Perm(len(services))
	var again []vip.Service
	var want []vip.Grant
	for _, i := range order {
		s := services[i]
		s.Has = grants[i].Addrs
		again, want = append(again, s), append(want, grants[i])
	}
	r.Shuffle(len(pools), func(i, j int) { pools[i], pools[j] = pools[j], pools[i] })
	for i, g := range vip.Plan(again, pools, reserved) {
		if diff := cmp.Diff(want[i].Addrs, g.Addrs, compare); diff != "" {
			t.Fatalf("seed %d: %s, decided again (-before +after):\n%s", seed, again[i].Name, diff)
		}
	}
}

func BenchmarkTenThousandServices(b *testing.B) {
	pools := []ipam.Pool{pool("p", "10.0.0.0/16")}
	var services []vip.Service
	for i := range 10_000 {
		services = append(services, service(i, fmt.Sprint("a/s", i), "4"))
	}
	for b.Loop() {
		vip.Plan(services, pools, nil)
	}
}
