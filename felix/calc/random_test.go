package calc_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

// dice makes random events over a universe so small that everything collides:
// names, addresses, labels, blocks and next hops.
type dice struct{ *rand.Rand }

func newDice(seed, stream uint64) dice { return dice{rand.New(rand.NewPCG(seed, stream))} }

func (d dice) chance(percent int) bool { return d.IntN(100) < percent }

func pick[V any](d dice, from ...V) V { return from[d.IntN(len(from))] }

// event returns the end of a thing one time in four, else a new state of it.
func (d dice) event() event.Event {
	name, value := d.thing()
	ev := event.Set(name, value)
	if d.chance(25) {
		return event.Event{Key: ev.Key}
	}
	return ev
}

// thing favours what stages spend their cleverness on.
func (d dice) thing() (string, event.Value) {
	switch k := d.IntN(100); {
	case k < 22:
		return d.pod()
	case k < 36:
		return d.endpoint()
	case k < 54:
		return d.policy()
	case k < 61:
		return d.namespace()
	case k < 64:
		return d.account()
	case k < 69:
		return d.networkSet()
	case k < 72:
		return d.slice()
	case k < 75:
		return d.service()
	case k < 77:
		return d.host()
	case k < 80:
		return d.tier()
	case k < 85:
		return d.learned()
	case k < 87:
		return d.block()
	case k < 89:
		return d.reach()
	case k < 91:
		return d.pool()
	case k < 95:
		return d.node()
	case k < 97:
		return d.ofBGP()
	case k < 98:
		return d.localInterface()
	case k < 99:
		if d.chance(20) {
			return "kube-proxy", &event.Proxy{NFTables: d.chance(50)}
		}
		return d.configuration()
	}
	return d.cluster()
}

func (d dice) ns() string { return pick(d, "a", "b", "c") }

func (d dice) labels(percent int) selector.Labels {
	m := map[string]string{}
	for _, k := range []string{"app", "role"} {
		if d.chance(percent) {
			m[k] = pick(d, "x", "y", "z")
		}
	}
	return selector.MakeLabels(m)
}

// addr returns one of few addresses of pods.
func (d dice) addr() netip.Addr {
	if d.chance(25) {
		return netip.MustParseAddr(fmt.Sprintf("fd00:10::%d", d.IntN(4)))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.0.%d.%d", d.IntN(2), d.IntN(6)))
}

func (d dice) addrs() []netip.Addr {
	var addrs []netip.Addr
	for range pick(d, 0, 1, 1, 1, 2) {
		addrs = append(addrs, d.addr())
	}
	return addrs
}

func (d dice) pod() (string, event.Value) {
	p := &event.Pod{
		Namespace: d.ns(), Name: fmt.Sprint("p", d.IntN(4)),
		Node: pick(d, "me", "me", "other", ""), Addrs: d.addrs(), Labels: d.labels(70),
		Account: pick(d, "", "default", "builder"), Ports: d.ports(), UID: d.uid(), Floating: d.floating(),
	}
	return p.Namespace + "/" + p.Name, p
}

func (d dice) namespace() (string, event.Value) {
	ns := &event.Namespace{Name: d.ns(), Labels: d.labels(60)}
	return ns.Name, ns
}

func (d dice) endpoint() (string, event.Value) {
	iface := fmt.Sprint("kor", d.IntN(6))
	return iface, &event.Endpoint{
		Handle:    ipam.Handle{Namespace: d.ns(), Pod: fmt.Sprint("p", d.IntN(4)), Sandbox: "s", Interface: "eth0"},
		Interface: iface, Addrs: d.addrs(), Generation: d.Uint64N(3), UID: d.uid(),
		Sources: pick(d, nil, nil, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}),
		Rates:   pick(d, desired.Rates{}, desired.Rates{}, desired.Rates{Ingress: 1_000_000}, desired.Rates{Egress: 1_000_000}),
	}
}

// uid is mostly not known, or the same.
func (d dice) uid() event.UID {
	return pick(d, event.UID{}, event.UID{}, event.UID{1}, event.UID{1}, event.UID{2})
}

func (d dice) selector() *selector.Selector {
	switch d.IntN(7) {
	case 0:
		return nil
	case 1:
		return selector.All()
	case 2:
		return selector.Has("role")
	case 3:
		return selector.Not(selector.Has("role"))
	case 4:
		return selector.NotIn("app", "x", "y")
	case 5:
		return selector.And(selector.In("app", "x", "y"), selector.NotEquals("role", "z"))
	}
	return selector.Equals("app", pick(d, "x", "y", "z"))
}

// scope is exact in most cases, as scopes made of NetworkPolicies are.
func (d dice) scope() policy.Scope {
	s := policy.Scope{Namespace: d.ns(), Pods: d.selector()}
	switch d.IntN(5) {
	case 0:
		s = policy.Scope{Pods: d.selector()}
	case 1:
		s = policy.Scope{Namespaces: d.selector(), Pods: d.selector()}
	}
	if d.chance(20) {
		s.Pods = selector.And(s.Pods, policy.Account(pick(d, nil, []string{"default"}), d.selector()))
	}
	if d.chance(30) {
		for range 2 {
			s.Things |= pick(d, policy.AllThings[:]...)
		}
	}
	return s
}

func (d dice) policy() (string, event.Value) {
	p := &policy.Policy{
		Key: policy.Key{Namespace: d.ns(), Name: fmt.Sprint("np", d.IntN(3))}, Generation: int64(d.IntN(3)),
		Tier: pick(d, policy.DefaultTier, policy.DefaultTier, policy.BaselineTier, "another", "third"), Order: pick(d, 1000.0, 1000, 1),
		Subject: d.scope(), Types: pick(d, policy.Ingress, policy.Egress, policy.Ingress|policy.Egress),
		Ingress: d.rules(), Egress: d.rules(),
		Enforcement: pick(d, policy.Enforced, policy.Enforced, policy.Enforced, policy.Staged),
		Hook:        pick(d, policy.Normal, policy.Normal, policy.Normal, policy.NormalAndForward, policy.PreDNAT, policy.Untracked),
	}
	return p.Key.String(), &event.Policy{Policy: p}
}

func (d dice) rules() []policy.Rule {
	var rules []policy.Rule
	for range d.IntN(3) {
		r := policy.Rule{Action: pick(d, policy.Allow, policy.Deny, policy.Pass)}
		for range d.IntN(3) {
			r.Peers = append(r.Peers, d.peerOf())
		}
		if d.chance(10) {
			r.Own = []policy.Peer{d.peerOf()}
		}
		if d.chance(40) {
			r.Ports = []policy.Port{{Protocol: policy.TCP, First: pick[uint16](d, 0, 80), Last: 80}}
		}
		if d.chance(30) {
			r.Ports = append(r.Ports, policy.Port{Protocol: pick(d, policy.TCP, policy.UDP, policy.AnyProtocol), Name: pick(d, "http", "dns")})
		}
		rules = append(rules, r)
	}
	return rules
}

func (d dice) peerOf() policy.Peer {
	scope := d.scope()
	switch d.IntN(10) {
	case 0:
		return policy.Peer{Nets: d.nets()}
	case 1:
		return policy.Peer{NotScope: &scope}
	case 2:
		return policy.Peer{Service: policy.ServiceName{Namespace: d.ns(), Name: pick(d, "s", "t")}}
	}
	return policy.Peer{Scope: &scope}
}

func (d dice) nets() []netip.Prefix {
	var nets []netip.Prefix
	for range d.IntN(4) {
		nets = append(nets, netip.MustParsePrefix(pick(d, "0.0.0.0/0", "10.0.0.0/24", "10.0.0.0/30", "10.0.0.1/32", "::/0", "fd00:10::/126")))
	}
	return nets
}

func (d dice) ports() []policy.NamedPort {
	var ports []policy.NamedPort
	for range pick(d, 0, 0, 1, 2) {
		ports = append(ports, policy.NamedPort{
			Name: pick(d, "http", "dns"), Protocol: pick(d, policy.TCP, policy.UDP), Port: pick[uint16](d, 53, 80, 8080),
		})
	}
	return ports
}

func (d dice) account() (string, event.Value) {
	a := &event.ServiceAccount{Namespace: d.ns(), Name: pick(d, "default", "builder"), Labels: d.labels(50)}
	return a.Namespace + "/" + a.Name, a
}

func (d dice) networkSet() (string, event.Value) {
	s := &event.NetworkSet{NetworkSet: policy.NetworkSet{Name: pick(d, "n1", "n2"), Labels: d.labels(60), Nets: d.nets()}}
	if d.chance(40) {
		return s.Name, s
	}
	s.Namespace = d.ns()
	return s.Namespace + "/" + s.Name, s
}

func (d dice) slice() (string, event.Value) {
	s := &event.EndpointSlice{Service: policy.ServiceName{Namespace: d.ns(), Name: pick(d, "s", "t")}, Addrs: d.addrs(), Ports: d.ports(), Backends: d.backends()}
	return s.Service.Namespace + "/" + pick(d, "s1", "s2", "s3"), s
}

func (d dice) host() (string, event.Value) {
	h := &event.HostEndpoint{HostEndpoint: policy.HostEndpoint{
		Name: pick(d, "h1", "h2", "h3"), Node: pick(d, "me", "me", "other"), Interface: pick(d, "", "", "*", "eth0", "eth1", "kor1"),
		Addrs: d.addrs(), Labels: d.labels(70), Ports: d.ports(),
	}}
	return h.Name, h
}

func (d dice) tier() (string, event.Value) {
	t := &event.Tier{Tier: policy.Tier{
		Name: pick(d, policy.DefaultTier, "another", "third"), Order: pick(d, 1.0, 2, 2_000_000), End: pick(d, policy.Deny, policy.Pass),
	}}
	return t.Name, t
}

func (d dice) pool() (string, event.Value) {
	if d.chance(40) {
		return d.floatingPool()
	}
	p := ipam.Pool{Name: pick(d, "v4", "v6", "half"), BlockSize: 26, Disabled: d.chance(20), Uses: pick(d, 0, 0, 0, ipam.LoadBalancer)}
	p.CIDR = netip.MustParsePrefix(pick(d, "10.0.0.0/16", "10.0.0.0/23", "fd00:10::/64"))
	return p.Name, &event.Pool{Pool: p, Masquerade: d.chance(50), Silent: d.chance(20), Encrypted: d.chance(20), Modes: d.modes(p.CIDR.Addr().Is6())}
}

var blockCIDRs = []string{"10.0.0.0/30", "10.0.0.4/30", "10.0.1.0/29", "10.0.1.3/32", "fd00:10::/126"}

func (d dice) block() (string, event.Value) {
	cidr := netip.MustParsePrefix(pick(d, blockCIDRs...))
	return cidr.String(), &event.Block{Block: ipam.Block{CIDR: cidr, Owner: ipam.Owner{Node: pick(d, "me", "n1", "n2", "other")}}}
}

func (d dice) learned() (string, event.Value) {
	a := d.addr()
	p := netip.PrefixFrom(a, a.BitLen())
	if d.chance(50) {
		p = netip.MustParsePrefix(pick(d, append(blockCIDRs, "0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/23", "192.0.2.0/24", "10.1.0.0/24", "10.1.0.1/32")...))
	}
	l := bgp.Learned{Prefix: p}
	for range d.IntN(4) {
		l.NextHops = append(l.NextHops, netip.MustParseAddr(fmt.Sprintf("172.16.0.%d", d.IntN(5))))
	}
	if d.chance(30) {
		for range l.NextHops {
			l.Weights = append(l.Weights, uint8(1+d.IntN(3)))
		}
	}
	return p.String(), &event.Learned{Learned: l}
}

func (d dice) node() (string, event.Value) {
	n := &event.Node{Name: pick(d, "me", "me", "n1", "n2"), Labels: d.labels(50)}
	if d.chance(10) {
		n.Labels = selector.MakeLabels(map[string]string{"node.kubernetes.io/exclude-from-external-load-balancers": ""})
	}
	for range d.IntN(3) {
		n.Addrs = append(n.Addrs, netip.MustParseAddr(fmt.Sprintf("172.16.0.%d", d.IntN(5))))
	}
	if d.chance(40) {
		n.Addrs = append(n.Addrs, netip.MustParseAddr(fmt.Sprintf("fd00:16::%d", d.IntN(5))))
	}
	if d.chance(20) {
		n.Others = d.addrs()
	}
	n.Draining, n.Cordoned = d.chance(10), d.chance(20)
	return n.Name, n
}

func (d dice) localInterface() (string, event.Value) {
	i := &event.LocalInterface{Name: pick(d, "eth0", "eth1", "eth2"), Addrs: d.addrs()}
	return i.Name, i
}

// sometimes returns a pointer to v half of the time.
func sometimes[V any](d dice, v V) *V {
	if d.chance(50) {
		return nil
	}
	return &v
}

func (d dice) configuration() (string, event.Value) {
	c := &event.NodeConfiguration{
		Name: pick(d, "default", "a", "z"), Nodes: pick(d, nil, nil, d.selector()),
		Backend:    sometimes(d, pick(d, desired.Auto, desired.IPTables, desired.NFTables)),
		Flavour:    sometimes(d, pick(d, desired.AutoFlavour, desired.LegacyFlavour)),
		Marks:      sometimes(d, pick[uint32](d, 0xf0000, 0xff000000)),
		FailsafeIn: sometimes(d, []desired.Failsafe{{Protocol: policy.TCP, Port: pick[uint16](d, 22, 2222)}}),
		MTU:        sometimes(d, pick(d, 1400, 9000)), Recheck: sometimes(d, d.chance(50)),
	}
	c.PodToHost, c.Loops = sometimes(d, pick(d, policy.Allow, policy.Deny)), sometimes(d, pick(d, policy.Pass, policy.Deny))
	c.Masquerade.To = sometimes(d, d.addrs())
	c.Masquerade.InsideNodes = sometimes(d, d.chance(50))
	c.Masquerade.InsideNets = sometimes(d, d.nets())
	c.ClampMSS, c.PodTunnels, c.TunnelSources = sometimes(d, d.chance(50)), sometimes(d, d.chance(50)), sometimes(d, d.nets())
	c.NodeCondition = sometimes(d, d.chance(50))
	c.TunnelOffload = sometimes(d, desired.TunnelOffload(d.IntN(3)))
	c.Encryption = d.encryption()
	return c.Name, c
}

// state returns a random state of about n things.
func (d dice) state(n int) state {
	s := state{}
	for range n {
		name, value := d.thing()
		s.put(event.Set(name, value))
	}
	return s
}
