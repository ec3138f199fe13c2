package calc_test

import (
	"math"
	"net/netip"
	"testing"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/selector"
)

// edit returns a policy changed by how.
func edit(ev event.Event, how func(*policy.Policy)) event.Event {
	p := *ev.Value.(*event.Policy).Policy
	how(&p)
	return event.Set(p.Key.String(), &event.Policy{Policy: &p})
}

func inTier(name string) func(*policy.Policy) { return func(p *policy.Policy) { p.Tier = name } }

func stage(p *policy.Policy) { p.Enforcement = policy.Staged }

func tierOf(name string, order float64, end policy.Action) event.Event {
	return event.Set(name, &event.Tier{Tier: policy.Tier{Name: name, Order: order, End: end}})
}

func TestItems48To51And55TiersOfAnEndpoint(t *testing.T) {
	base := evs{endpoint("kor1", "a/web", 1, "10.0.0.1"), pod("a/web", "me", "app=web"), isolate("a/np", policy.Ingress, "web")}
	early, late := edit(isolate("a/early", both, "web"), inTier("early")), edit(isolate("a/late", both, "web"), inTier("late"))
	last := edit(isolate("a/last", policy.Ingress, "web"), func(p *policy.Policy) { p.Order = math.Inf(1) })
	for name, c := range map[string]struct {
		steps   []evs
		ingress string
	}{
		"tiers stand in the order of their orders": {
			[]evs{{early, late, tierOf("early", 2, policy.Pass), tierOf("late", 3_000_000, policy.Deny)}},
			"early Pass np Deny late Deny",
		},
		"tiers of equal orders stand in the order of their names": {
			[]evs{{early, late, tierOf("early", 2, policy.Pass), tierOf("late", 2, policy.Pass)}},
			"early Pass late Pass np Deny",
		},
		"a tier that moves takes its policies along": {
			[]evs{
				{early, tierOf("early", 2, policy.Pass)},
				{tierOf("early", 3_000_000, policy.Pass)},
			},
			"np Deny early Pass",
		},
		"a tier that ends otherwise changes the chain": {
			[]evs{{early, tierOf("early", 2, policy.Pass)}, {tierOf("early", 2, policy.Deny)}},
			"early Deny np Deny",
		},
		"a tier that nobody defined is the last and closed": {
			[]evs{{early, tierOf("early", 2, policy.Pass)}, {gone(tierOf("early", 2, policy.Pass))}},
			"np Deny early Deny",
		},
		"a tier without a policy that selects the endpoint in this direction is not there": {
			[]evs{{edit(isolate("a/early", policy.Egress, "web"), inTier("early")), edit(isolate("a/late", both, "db"), inTier("late"))}},
			"np Deny",
		},
		"a tier with staged policies alone is not there": {
			[]evs{{edit(early, stage), tierOf("early", 2, policy.Deny)}},
			"np Deny",
		},
		"a policy that is staged leaves its tier": {
			[]evs{{early, tierOf("early", 2, policy.Pass)}, {edit(early, stage)}},
			"np Deny",
		},
		"a policy without an order is the last of its tier, before names": {
			[]evs{{last, isolate("a/zz", policy.Ingress, "web")}},
			"np zz last Deny",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := ready(t, base...)
			for _, step := range c.steps {
				r.tell(step...)
			}
			if got := r.chain("kor1", policy.Ingress); got != c.ingress {
				t.Errorf("ingress is %q, want %q", got, c.ingress)
			}
		})
	}
}

func TestItem55AStagedPolicyIsPendingAndHasNoProgram(t *testing.T) {
	np := isolate("a/np", policy.Ingress, "web", apps("a", "db"))
	r := ready(t, endpoint("kor1", "a/web", 1, "10.0.0.1"), pod("a/web", "me", "app=web"), edit(np, stage))
	chain := r.world.Endpoints["kor1"].Ingress
	if len(chain.Tiers) != 0 || chain.Default != policy.Allow || len(chain.Pending) != 1 {
		t.Errorf("chain of a staged policy is %+v, want it pending alone", chain)
	}
	if len(r.world.Programs)+len(r.policySets()) > 0 {
		t.Errorf("a staged policy has programs %v and sets %v", r.world.Programs, r.world.Sets)
	}
	r.tell(np)
	if chain := r.world.Endpoints["kor1"].Ingress; len(chain.Tiers) != 1 || chain.Pending != nil || len(r.world.Programs) != 1 || len(r.policySets()) != 1 {
		t.Errorf("enforced: chain %+v, programs %v, sets %v", chain, r.world.Programs, r.world.Sets)
	}
}

func TestAStagedPolicyRaisesNoDoubt(t *testing.T) {
	r := ready(t, endpoint("kor1", "a/web", 1, "10.0.0.1"), edit(isolate("a/np", both, "web"), stage))
	if got := r.chain("kor1", policy.Ingress); got != "Allow" {
		t.Errorf("ingress of a pod not known yet is %q, want Allow", got)
	}
}

// withSet returns a policy of pods a/web that allows from one peer, with ports.
func withSet(peer policy.Peer, ports ...policy.Port) event.Event {
	return edit(isolate("a/np", policy.Egress, "web"), func(p *policy.Policy) {
		p.Egress = []policy.Rule{{Action: policy.Allow, Peers: []policy.Peer{peer}, Ports: ports}}
	})
}

// ends returns the members of a set with their ports, "absent" without one.
func (r *run) ends(def policy.Set) string {
	set, exists := r.world.Sets[compile.SetIDOf(def)]
	if !exists {
		return "absent"
	}
	return texts(set, func(m ir.Member) string {
		if !def.HasPorts() {
			return m.Prefix.String()
		}
		return netip.AddrPortFrom(m.Prefix.Addr(), m.Port).String() + "/" + m.Protocol.String()
	})
}

func serving(ev event.Event, ports ...policy.NamedPort) event.Event {
	p := *ev.Value.(*event.Pod)
	p.Ports = ports
	return event.Set(ev.Key.Name, &p)
}

func TestItem37NamesOfPortsAreThoseOfEachPod(t *testing.T) {
	dbs := apps("a", "db")
	http := func(number uint16) policy.NamedPort {
		return policy.NamedPort{Name: "http", Protocol: policy.TCP, Port: number}
	}
	udp := policy.NamedPort{Name: "http", Protocol: policy.UDP, Port: 80}
	r := ready(t, endpoint("kor1", "a/web", 1, "10.0.0.1"), pod("a/web", "me", "app=web"),
		serving(pod("a/db1", "other", "app=db", "10.0.1.1"), http(80), udp),
		serving(pod("a/db2", "other", "app=db", "10.0.1.2"), http(8080), http(8081)),
		serving(pod("b/db3", "other", "app=db", "10.0.1.3"), http(80)),
		withSet(policy.Peer{Scope: &dbs}, policy.Port{Protocol: policy.TCP, Name: "http"}))
	def := policy.Set{Scope: dbs, Port: policy.PortName{Protocol: policy.TCP, Name: "http"}}
	if got, want := r.ends(def), "10.0.1.1:80/TCP 10.0.1.2:8080/TCP 10.0.1.2:8081/TCP"; got != want {
		t.Errorf("members are %q, want %q", got, want)
	}
	r.tell(serving(pod("a/db2", "other", "app=db", "10.0.1.2"), http(8081)))
	if got, want := r.ends(def), "10.0.1.1:80/TCP 10.0.1.2:8081/TCP"; got != want {
		t.Errorf("members are %q after a port went, want %q", got, want)
	}
}

func TestItems25And53NetworkSetsOverlap(t *testing.T) {
	named := func(key, label string, nets ...string) event.Event {
		s := policy.NetworkSet{Name: key, Labels: labels(label)}
		if ns := policyKey(key); ns.Name != "" {
			s.Namespace, s.Name = ns.Namespace, ns.Name
		}
		for _, n := range nets {
			s.Nets = append(s.Nets, netip.MustParsePrefix(n))
		}
		return event.Set(key, &event.NetworkSet{NetworkSet: s})
	}
	scope := policy.Scope{Pods: selector.Equals("net", "bad"), Things: policy.Pods | policy.NetworkSets | policy.GlobalNetworkSets}
	r := ready(t, endpoint("kor1", "a/web", 1, "10.0.0.1"), pod("a/web", "me", "app=web"), namespace("a", ""),
		pod("a/evil", "other", "net=bad", "10.0.1.1"),
		named("botnet", "net=bad", "192.0.2.0/24", "0.0.0.0/0"), named("a/mine", "net=bad", "192.0.2.0/24", "192.0.2.0/25"),
		named("a/good", "net=good", "198.51.100.0/24"),
		withSet(policy.Peer{Scope: &scope}))
	def := policy.Set{Scope: scope}
	if got, want := r.ends(def), "0.0.0.0/0 10.0.1.1/32 192.0.2.0/24 192.0.2.0/25"; got != want {
		t.Errorf("members are %q, want %q", got, want)
	}
	r.tell(gone(named("botnet", "")))
	if got, want := r.ends(def), "10.0.1.1/32 192.0.2.0/24 192.0.2.0/25"; got != want {
		t.Errorf("members are %q after one of two sets went, want %q", got, want)
	}
	r.tell(named("a/mine", "net=good", "192.0.2.0/24"))
	if got, want := r.ends(def), "10.0.1.1/32"; got != want {
		t.Errorf("members are %q after the other was relabelled, want %q", got, want)
	}
	if len(r.world.Endpoints) != 1 || len(r.world.Hosts) != 0 {
		t.Error("a network set became the subject of a policy")
	}
}

func TestItem56EndpointsOfAService(t *testing.T) {
	web := policy.ServiceName{Namespace: "b", Name: "web"}
	slice := func(name string, ips ...string) event.Event {
		return event.Set("b/"+name, &event.EndpointSlice{Service: web, Addrs: addrs(ips...), Ports: []policy.NamedPort{
			{Name: "http", Protocol: policy.TCP, Port: 8080}, {Protocol: policy.UDP, Port: 53},
		}})
	}
	r := ready(t, endpoint("kor1", "a/web", 1, "10.0.0.1"), pod("a/web", "me", "app=web"),
		slice("one", "10.0.1.1"), slice("two", "10.0.1.1", "192.0.2.9"), withSet(policy.Peer{Service: web}))
	def := policy.Set{Service: web}
	if got, want := r.ends(def), "10.0.1.1:53/UDP 10.0.1.1:8080/TCP 192.0.2.9:53/UDP 192.0.2.9:8080/TCP"; got != want {
		t.Errorf("members are %q, want %q", got, want)
	}
	r.tell(gone(slice("two")))
	if got, want := r.ends(def), "10.0.1.1:53/UDP 10.0.1.1:8080/TCP"; got != want {
		t.Errorf("members are %q after a slice went, want %q", got, want)
	}
	r.tell(slice("one"))
	if got := r.ends(def); got != "" {
		t.Errorf("members are %q after the last endpoint went, want none", got)
	}
}

func account(key, label string) event.Event {
	k := policyKey(key)
	return event.Set(key, &event.ServiceAccount{Namespace: k.Namespace, Name: k.Name, Labels: labels(label)})
}

func runningAs(ev event.Event, account string) event.Event {
	p := *ev.Value.(*event.Pod)
	p.Account = account
	return event.Set(ev.Key.Name, &p)
}

func TestPodsAreSelectedByTheirServiceAccounts(t *testing.T) {
	trusted := edit(isolate("a/np", policy.Ingress, "web"), func(p *policy.Policy) {
		p.Subject.Pods = policy.Account(nil, selector.Equals("trust", "low"))
	})
	web := runningAs(pod("a/web", "me", "app=web"), "builder")
	r := ready(t, endpoint("kor1", "a/web", 1, "10.0.0.1"), web, trusted)
	for _, c := range []struct {
		ev   event.Event
		want string
	}{
		{account("a/other", "trust=high"), "Deny"}, // in doubt: the pod's account is unknown
		{account("a/builder", "trust=high"), "Allow"},
		{account("a/builder", "trust=low"), "np Deny"},
		{gone(account("a/builder", "")), "Deny"},
		{runningAs(pod("a/web", "me", "app=web"), "other"), "Allow"},
	} {
		r.tell(c.ev)
		if got := r.chain("kor1", policy.Ingress); got != c.want {
			t.Errorf("ingress is %q after %v, want %q", got, c.ev.Key, c.want)
		}
	}
}

func TestHostEndpointsOfThisNode(t *testing.T) {
	host := func(name, node, label string) event.Event {
		return event.Set(name, &event.HostEndpoint{HostEndpoint: policy.HostEndpoint{
			Name: name, Node: node, Interface: "eth0", Addrs: addrs("172.16.0.1"), Labels: labels(label),
		}})
	}
	guard := func(hook policy.Hook) event.Event {
		p := &policy.Policy{
			Key: policy.Key{Kind: policy.GlobalNetworkPolicy, Name: "guard"}, Tier: policy.DefaultTier, Types: policy.Ingress, Hook: hook,
			Subject: policy.Scope{Pods: selector.Equals("role", "node"), Things: policy.Pods | policy.HostEndpoints},
		}
		return event.Set(p.Key.String(), &event.Policy{Policy: p})
	}
	r := ready(t, host("mine", "me", "role=node"), host("theirs", "other", "role=node"),
		endpoint("kor1", "a/web", 1, "10.0.0.1"), pod("a/web", "me", "role=node"), guard(policy.PreDNAT))
	h, here := r.world.Hosts["eth0"]
	if !here || h.Name != "mine" || len(r.world.Hosts) != 1 {
		t.Fatalf("hosts are %v, want mine alone", r.world.Hosts)
	}
	if h.Normal.Ingress.Default != policy.Deny || h.Forward.Ingress.Default != policy.Allow || len(h.Normal.Ingress.Tiers) > 0 {
		t.Errorf("without a policy at their points: normal %+v, forward %+v", h.Normal.Ingress, h.Forward.Ingress)
	}
	if tiers := h.PreDNAT.Ingress.Tiers; len(tiers) != 1 || tiers[0].End != policy.Pass {
		t.Errorf("before DNAT: %+v, want a tier that ends with Pass", tiers)
	}
	if got := r.chain("kor1", policy.Ingress); got != "Allow" {
		t.Errorf("a policy before DNAT is %q at a pod, want Allow", got)
	}
	r.tell(guard(policy.Normal))
	if h := r.world.Hosts["eth0"]; len(h.Normal.Ingress.Tiers) != 1 || len(h.PreDNAT.Ingress.Tiers) != 0 {
		t.Errorf("a policy that moves to the normal point leaves %+v", h)
	}
	r.tell(gone(host("mine", "", "")))
	if len(r.world.Hosts) > 0 {
		t.Errorf("hosts are %v after their end", r.world.Hosts)
	}
}
