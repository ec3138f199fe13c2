package calc_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/selector"
)

// announcing returns a configuration whose ranges of every kind are in a short
// notation: "CIDR" is aggregated, "CIDR single" is not.
func announcing(ranges ...string) event.Event {
	var list []event.ServiceRange
	for _, r := range ranges {
		f := strings.Fields(r)
		list = append(list, event.ServiceRange{CIDR: netip.MustParsePrefix(f[0]), Aggregate: len(f) == 1})
	}
	c := *bgpConfig(true).Value.(*event.BGP)
	c.Services = event.ServiceRanges{ClusterIPs: list, ExternalIPs: list, LoadBalancerIPs: list}
	return event.Set("default", &c)
}

// service returns a service a/web in a short notation: "cluster=ADDR external=ADDR
// lb=ADDR", and "local" or "internal-local".
func service(words string) event.Event {
	s := &event.Service{ServiceName: policy.ServiceName{Namespace: "a", Name: "web"}}
	for _, w := range strings.Fields(words) {
		kind, addr, _ := strings.Cut(w, "=")
		switch kind {
		case "cluster":
			s.ClusterIPs = append(s.ClusterIPs, netip.MustParseAddr(addr))
		case "external":
			s.ExternalIPs = append(s.ExternalIPs, netip.MustParseAddr(addr))
		case "lb":
			s.LoadBalancerIPs = append(s.LoadBalancerIPs, netip.MustParseAddr(addr))
		case "local":
			s.ExternalLocal = true
		case "internal-local":
			s.InternalLocal = true
		}
	}
	return event.Set("a/web", s)
}

// backends returns an endpoint slice of a/web: "NODE ready", "NODE ending", "NODE down".
func backends(slice string, states ...string) event.Event {
	s := &event.EndpointSlice{Service: policy.ServiceName{Namespace: "a", Name: "web"}}
	for _, state := range states {
		node, how, _ := strings.Cut(state, " ")
		s.Backends = append(s.Backends, event.Backend{Node: node, Ready: how == "ready", Ending: how == "ending"})
	}
	return event.Set("a/"+slice, s)
}

// announced returns the prefixes of services that the neighbours are told.
func (r *run) announced() string {
	services := map[netip.Prefix]bool{}
	for k := range r.world.Paths {
		if k.Kind == bgp.Services && k.Advertisement == "" {
			services[k.Prefix] = true
		}
	}
	return texts(services, netip.Prefix.String)
}

func TestItem77ServicesAreAnnouncedByNodesThatServeThem(t *testing.T) {
	excluded := node("me", "node.kubernetes.io/exclude-from-external-load-balancers=")
	for name, c := range map[string]struct {
		steps []evs
		want  string
	}{
		"an aggregate is announced by every node, with or without services": {
			[]evs{{announcing("10.96.0.0/12")}}, "10.96.0.0/12",
		},
		"a service for which every node will do is in the aggregate": {
			[]evs{{announcing("10.96.0.0/12"), service("cluster=10.96.0.1 lb=10.97.0.1"), backends("s1", "other ready")}}, "10.96.0.0/12",
		},
		"without aggregation it is a single address of every node": {
			[]evs{{announcing("10.96.0.0/12 single"), service("lb=10.97.0.1"), backends("s1", "other ready")}}, "10.97.0.1/32",
		},
		"without any backend it is nobody's": {
			[]evs{{announcing("10.96.0.0/12 single"), service("lb=10.97.0.1"), backends("s1", "other down")}}, "",
		},
		"an address outside the ranges is nobody's": {
			[]evs{{announcing("10.96.0.0/12 single"), service("external=192.0.2.1"), backends("s1", "me ready")}}, "",
		},
		"the narrowest range decides": {
			[]evs{{announcing("10.96.0.0/12", "10.97.0.0/24 single"), service("lb=10.97.0.1"), backends("s1", "other ready")}},
			"10.96.0.0/12 10.97.0.1/32",
		},
		"a Local service is announced beside the aggregate where it has a backend": {
			[]evs{{announcing("10.96.0.0/12"), service("cluster=10.96.0.1 external=10.98.0.1 lb=10.97.0.1 local"), backends("s1", "me ready")}},
			"10.96.0.0/12 10.97.0.1/32 10.98.0.1/32",
		},
		"not where it has none": {
			[]evs{{announcing("10.96.0.0/12"), service("lb=10.97.0.1 local"), backends("s1", "other ready")}}, "10.96.0.0/12",
		},
		"not where its backend is not ready": {
			[]evs{{announcing("10.96.0.0/12"), service("lb=10.97.0.1 local"), backends("s1", "me down", "other ready")}}, "10.96.0.0/12",
		},
		"every slice of the service counts": {
			[]evs{
				{announcing("10.96.0.0/12 single"), service("lb=10.97.0.1 local"), backends("s1", "other ready"), backends("s2", "other ready"), backends("s3", "me ready")},
				{gone(backends("s1"))},
			}, "10.97.0.1/32",
		},
		"the slice that comes before its service counts": {
			[]evs{{announcing("10.96.0.0/12 single"), backends("s1", "me ready")}, {service("lb=10.97.0.1 local")}}, "10.97.0.1/32",
		},
		"a clusterIP follows the internal policy alone": {
			[]evs{{announcing("10.96.0.0/12 single"), service("cluster=10.96.0.1 lb=10.97.0.1 internal-local"), backends("s1", "other ready")}}, "10.97.0.1/32",
		},
		"other addresses follow the external policy alone": {
			[]evs{{announcing("10.96.0.0/12 single"), service("cluster=10.96.0.1 lb=10.97.0.1 local"), backends("s1", "other ready")}}, "10.96.0.1/32",
		},
		"a node is left when its last backend begins to end": {
			[]evs{
				{announcing("10.96.0.0/12 single"), service("lb=10.97.0.1 local"), backends("s1", "me ready", "other ready")},
				{backends("s1", "me ending", "other ready")},
			}, "",
		},
		"the last backends of all serve until they have ended": {
			[]evs{
				{announcing("10.96.0.0/12 single"), service("lb=10.97.0.1 local"), backends("s1", "me ready")},
				{backends("s1", "me ending")},
			}, "10.97.0.1/32",
		},
		"until another is ready": {
			[]evs{
				{announcing("10.96.0.0/12 single"), service("lb=10.97.0.1 local"), backends("s1", "me ending")},
				{backends("s2", "other ready")},
			}, "",
		},
		"one backend of two that ends changes nothing": {
			[]evs{{announcing("10.96.0.0/12 single"), service("lb=10.97.0.1 local"), backends("s1", "me ending"), backends("s2", "me ready")}}, "10.97.0.1/32",
		},
		"an excluded node announces nothing": {
			[]evs{{excluded, announcing("10.96.0.0/12"), service("lb=10.97.0.1 local"), backends("s1", "me ready")}}, "",
		},
		"a node that is excluded no more announces": {
			[]evs{
				{excluded, announcing("10.96.0.0/12"), service("lb=10.97.0.1 local"), backends("s1", "me ready")},
				{node("me", "")},
			}, "10.96.0.0/12 10.97.0.1/32",
		},
		"two services with one address are one path, as long as one of them wants it": {
			[]evs{
				{
					announcing("10.96.0.0/12 single"), service("external=10.98.0.1 local"), backends("s1", "me ready"),
					event.Set("b/web", &event.Service{ServiceName: policy.ServiceName{Namespace: "b", Name: "web"}, ExternalIPs: []netip.Addr{netip.MustParseAddr("10.98.0.1")}}),
				},
				{gone(event.Set("b/web", &event.Service{}))},
			}, "10.98.0.1/32",
		},
		"a range that is not allowed any more takes its services along": {
			[]evs{
				{announcing("10.96.0.0/12", "2001:db8::/64 single"), service("lb=10.97.0.1 lb=2001:db8::1 local"), backends("s1", "me ready")},
				{announcing("2001:db8::/64 single")},
			}, "2001:db8::1/128",
		},
		"a service that goes is not announced": {
			[]evs{
				{announcing("10.96.0.0/12 single"), service("lb=10.97.0.1"), backends("s1", "me ready")},
				{gone(service(""))},
			}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := ready(t)
			for _, step := range c.steps {
				r.tell(step...)
			}
			if got := r.announced(); got != c.want {
				t.Errorf("announced is %q, want %q", got, c.want)
			}
		})
	}
}

func TestItem67OnlyWhatIsAllowedIsLearned(t *testing.T) {
	v4 := pool("10.0.0.0/16")
	learning := func(nets ...string) event.Event {
		c := *announcing("10.96.0.0/12").Value.(*event.BGP)
		for _, n := range nets {
			c.Learn = append(c.Learn, netip.MustParsePrefix(n))
		}
		return event.Set("default", &c)
	}
	routesAre(t, map[string]routeCase{
		"an address of a service that others serve is learned": {
			[]evs{{v4, announcing("10.96.0.0/12"), learned("10.97.0.1/32", "172.16.0.9")}}, "10.97.0.1/32", "via 172.16.0.9",
		},
		"one that this node announces is not, or nobody would end the way of its packets": {
			[]evs{
				{announcing("10.96.0.0/12"), learned("10.97.0.1/32", "172.16.0.9")},
				{service("lb=10.97.0.1 local"), backends("s1", "me ready")},
			}, "10.97.0.1/32", "none",
		},
		"it is again when it does not any more": {
			[]evs{
				{announcing("10.96.0.0/12"), learned("10.97.0.1/32", "172.16.0.9"), service("lb=10.97.0.1 local"), backends("s1", "me ready")},
				{backends("s1", "other ready")},
			}, "10.97.0.1/32", "via 172.16.0.9",
		},
		"an aggregate that this node announces is not learned": {
			[]evs{{announcing("10.96.0.0/12"), learned("10.96.0.0/12", "172.16.0.9")}}, "10.96.0.0/12", "none",
		},
		"a range that people allow is learned, and what is inside": {
			[]evs{{learned("192.0.2.0/25", "172.16.0.9"), learning("192.0.2.0/24")}}, "192.0.2.0/25", "via 172.16.0.9",
		},
		"what is around it is not": {
			[]evs{{learned("192.0.0.0/16", "172.16.0.9"), learning("192.0.2.0/24")}}, "192.0.0.0/16", "none",
		},
		"a default route is learned when it is asked for": {
			[]evs{{learned("0.0.0.0/0", "172.16.0.9")}, {learning("0.0.0.0/0")}}, "0.0.0.0/0", "via 172.16.0.9",
		},
		"which lets nothing else in": {
			[]evs{{learned("192.0.2.0/24", "172.16.0.9")}, {learning("0.0.0.0/0")}}, "192.0.2.0/24", "none",
		},
		"nor that of the other family": {
			[]evs{{learned("::/0", "fe80::1%eth0")}, {learning("0.0.0.0/0")}}, "::/0", "none",
		},
		"what is not allowed any more goes": {
			[]evs{{learned("0.0.0.0/0", "172.16.0.9"), learning("0.0.0.0/0")}, {learning()}}, "0.0.0.0/0", "none",
		},
		"a next hop of the other family stays what it is": {
			[]evs{{v4, learned("10.0.9.0/26", "fe80::1%eth0")}}, "10.0.9.0/26", "via fe80::1%eth0",
		},
	})
}

func TestItem74WeightsFollowTheirNextHops(t *testing.T) {
	l := learned("10.0.9.0/26", "172.16.0.9", "172.16.0.1", "172.16.0.10").Value.(*event.Learned).Learned
	l.Weights = []uint8{9, 1, 10}
	r := ready(t, pool("10.0.0.0/16"), node("me", "", "172.16.0.1"), event.Set("10.0.9.0/26", &event.Learned{Learned: l}))
	if got := r.world.Routes[netip.MustParsePrefix("10.0.9.0/26")].Weights; fmt.Sprint(got) != "[9 10]" {
		t.Errorf("weights are %v, want those of 172.16.0.9 and 172.16.0.10", got)
	}
	l.Weights = []uint8{9, 1, 11}
	r.put(event.Set("10.0.9.0/26", &event.Learned{Learned: l}))
	if d := r.engine.Flush(); len(d.Routes) != 1 {
		t.Errorf("a changed weight says %v", d.Routes)
	}
}

func TestAdvertisementsTellOfTheServicesTheySelect(t *testing.T) {
	advertisement := func(lengths int) event.Event {
		return event.Set("anycast", &event.Advertisement{Name: "anycast", Services: &event.AdvertisedServices{
			Labels: selector.Equals("tier", "edge"), LoadBalancerIPs: true, Length4: lengths, Length6: 128,
		}})
	}
	labelled := func(name, words, label string) event.Event {
		s := *service(words).Value.(*event.Service)
		s.Name, s.Labels = name, labels(label)
		return event.Set("a/"+name, &s)
	}
	other := event.Set("a/other", &event.EndpointSlice{Service: policy.ServiceName{Namespace: "a", Name: "other"}, Backends: []event.Backend{{Node: "me", Ready: true}}})
	for name, c := range map[string]struct {
		steps []evs
		want  string
	}{
		"beside what is told by kind, also inside of an aggregate": {
			[]evs{{announcing("10.96.0.0/12"), node("me", ""), advertisement(32), labelled("web", "cluster=10.96.0.1 lb=10.97.0.1", "tier=edge"), backends("s1", "other ready")}},
			"10.97.0.1/32",
		},
		"not of services that it does not select": {
			[]evs{{announcing("10.96.0.0/12"), node("me", ""), advertisement(32), labelled("web", "lb=10.97.0.1", "tier=core"), backends("s1", "me ready")}}, "",
		},
		"not of addresses that are not allowed": {
			[]evs{{announcing("10.98.0.0/16"), node("me", ""), advertisement(32), labelled("web", "lb=10.97.0.1", "tier=edge"), backends("s1", "me ready")}}, "",
		},
		"not of Local services without a backend here": {
			[]evs{{announcing("10.96.0.0/12"), node("me", ""), advertisement(32), labelled("web", "lb=10.97.0.1 local", "tier=edge"), backends("s1", "other ready")}}, "",
		},
		"a shorter prefix is told as long as one service wants it": {
			[]evs{
				{
					announcing("10.96.0.0/12"), node("me", ""), advertisement(24), labelled("web", "lb=10.97.0.1", "tier=edge"), backends("s1", "me ready"),
					labelled("other", "lb=10.97.0.2", "tier=edge"), other,
				},
				{gone(other)},
			}, "10.97.0.0/24",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := ready(t)
			for _, step := range c.steps {
				r.tell(step...)
			}
			got := map[netip.Prefix]bool{}
			for k := range r.world.Paths {
				if k.Kind == bgp.Services && k.Advertisement == "anycast" {
					got[k.Prefix] = true
				}
			}
			if text := texts(got, netip.Prefix.String); text != c.want {
				t.Errorf("told %q, want %q", text, c.want)
			}
		})
	}
}

func TestRangesOfServicesAreKeptFromLooping(t *testing.T) {
	r := ready(t, announcing("10.96.0.0/12", "192.0.2.0/24 single"))
	if got := texts(r.world.Sets[desired.ServicesSet], func(m ir.Member) string { return m.Prefix.String() }); got != "10.96.0.0/12 192.0.2.0/24" {
		t.Errorf("ranges of services are %q", got)
	}
}
