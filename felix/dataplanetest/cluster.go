package dataplanetest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/selector"
)

// cluster is one that was drawn, as the engine is told of it and as policy/eval
// is asked about it.
type cluster struct {
	dice
	seed     uint64
	law      *eval.Cluster
	events   []event.Event
	settings desired.Settings
	text     strings.Builder // the objects, for people
}

// nodeOf are the nodes of the sites that are pods.
var nodeOf = map[string]string{"a": "here", "b": "here", "c": "here", "rem0": "there", "rem1": "yonder"}

func drawCluster(seed uint64) *cluster {
	c := &cluster{dice: dice{rand.New(rand.NewPCG(seed, 1))}, seed: seed}
	c.law = &eval.Cluster{
		Namespaces: map[string]selector.Labels{}, Accounts: map[policy.ServiceName]selector.Labels{}, Tiers: policy.Tiers{},
		ServiceNets: serviceNets, Explain: true,
	}
	for _, ns := range []string{"n0", "n1", "n2"} {
		labels := c.labels()
		c.law.Namespaces[ns] = made(labels)
		c.tell(ns, &event.Namespace{Name: ns, Labels: made(labels)}, labels)
		for _, account := range []string{"x", "y"} {
			labels := c.labels()
			c.law.Accounts[policy.ServiceName{Namespace: ns, Name: account}] = made(labels)
			c.tell(ns+"/"+account, &event.ServiceAccount{Namespace: ns, Name: account, Labels: made(labels)}, labels)
		}
	}
	for _, name := range []string{"a", "b", "c", "rem0", "rem1"} {
		c.pod(name)
	}
	c.node("here", "host", "host1")
	c.node("there", "node0")
	c.node("yonder", "node1")
	for i := range c.IntN(4) {
		c.networkSet(i)
	}
	for _, ns := range []string{"n0", "n1"} {
		c.service(ns)
	}
	for _, name := range tierNames[:2] {
		t := policy.Tier{Name: name, Order: pick(c.dice, 5.0, 5, 2_000_000, 20_000_000), End: pick(c.dice, policy.Deny, policy.Pass, policy.Pass)}
		c.law.Tiers[name] = t
		c.tell(name, &event.Tier{Tier: t}, t)
	}
	for i := range 2 + c.IntN(8) {
		c.enforce(c.policy(i))
	}
	if c.one(2) {
		c.hostEndpoints()
		for i := range 1 + c.IntN(5) {
			c.enforce(c.hostPolicy(i))
		}
	}
	c.set()
	return c
}

func (c *cluster) enforce(p *policy.Policy, spec string) {
	c.law.Policies = append(c.law.Policies, p)
	c.events = append(c.events, event.Set(p.Key.String(), &event.Policy{Policy: p}))
	c.text.WriteString(spec)
}

// tell notes what the engine hears, and how it is written for people.
func (c *cluster) tell(name string, v event.Value, spec any) {
	c.events = append(c.events, event.Set(name, v))
	if spec != nil {
		c.text.WriteString(text(fmt.Sprintf("%T", v), name, spec))
	}
}

// pod draws what a pod is like; where it is does not change.
func (c *cluster) pod(name string) {
	labels, ports := c.labels(), c.namedPorts()
	p := eval.Pod{
		Namespace: c.namespace(), Name: name, Node: nodeOf[name], Addrs: addrsOf(name),
		Labels: made(labels), Account: pick(c.dice, "x", "y"), Ports: ports,
	}
	c.law.Pods = append(c.law.Pods, p)
	c.tell(p.Namespace+"/"+name, &event.Pod{
		Namespace: p.Namespace, Name: name, Node: p.Node, Addrs: p.Addrs, Labels: p.Labels, Account: p.Account, Ports: ports,
	}, map[string]any{"labels": labels, "ports": ports, "account": p.Account, "addresses": p.Addrs})
	if p.Node == "here" {
		iface := desired.HostInterface("test", name)
		c.tell(iface, &event.Endpoint{
			Handle:    ipam.Handle{Namespace: p.Namespace, Pod: name, Sandbox: "s", Interface: "eth0"},
			Interface: iface, Addrs: p.Addrs, Generation: 1,
		}, nil)
	}
}

func (c *cluster) node(name string, sites ...string) {
	labels := c.labels()
	n := eval.Node{Name: name, Labels: made(labels)}
	for _, s := range sites {
		n.Addrs = append(n.Addrs, addrsOf(s)...)
	}
	c.law.Nodes = append(c.law.Nodes, n)
	c.tell(name, &event.Node{Name: name, UID: name, Labels: n.Labels, Addrs: n.Addrs}, labels)
}

func (c *cluster) networkSet(i int) {
	labels := c.labels()
	s := policy.NetworkSet{Namespace: pick(c.dice, "", "", "n0", "n1"), Name: fmt.Sprint("set", i), Labels: made(labels), Nets: c.nets()}
	c.law.NetworkSets = append(c.law.NetworkSets, s)
	name := s.Name
	if s.Namespace != "" {
		name = s.Namespace + "/" + s.Name
	}
	c.tell(name, &event.NetworkSet{NetworkSet: s}, map[string]any{"labels": labels, "nets": s.Nets})
}

// service draws where a service that rules name leads.
func (c *cluster) service(ns string) {
	name := policy.ServiceName{Namespace: ns, Name: "s"}
	s := eval.Service{ServiceName: name}
	for i := range c.IntN(3) {
		slice := &event.EndpointSlice{Service: name, Addrs: addrsOf(pick(c.dice, "a", "b", "rem0", "out1")), Ports: c.namedPorts()}
		for _, a := range slice.Addrs {
			s.Ends = append(s.Ends, eval.ServiceEnd{Addr: a})
			for _, p := range slice.Ports {
				s.Ends = append(s.Ends, eval.ServiceEnd{Addr: a, Protocol: p.Protocol, Port: p.Port})
			}
		}
		c.tell(fmt.Sprint(ns, "/s", i), slice, slice)
	}
	c.law.Services = append(c.law.Services, s)
}

// hostEndpoints draws some of this node and of another, where they are peers.
// Several may stand for one interface.
func (c *cluster) hostEndpoints() {
	for i := range 1 + c.IntN(4) {
		labels := c.labels()
		h := policy.HostEndpoint{
			Name: fmt.Sprint("host", i), Node: pick(c.dice, "here", "here", "here", "there"),
			Interface: pick(c.dice, "eth0", "eth1", desired.AnyInterface, ""), Labels: made(labels), Ports: c.namedPorts(),
		}
		if c.one(2) || h.Interface == "" {
			h.Addrs = addrsOf(pick(c.dice, "host", "host1", "node0"))
		}
		c.law.HostEndpoints = append(c.law.HostEndpoints, h)
		c.tell(h.Name, &event.HostEndpoint{HostEndpoint: h}, map[string]any{
			"node": h.Node, "interface": h.Interface, "addresses": h.Addrs, "labels": labels, "ports": h.Ports,
		})
	}
}

// set draws the settings of the node.
func (c *cluster) set() {
	s := desired.DefaultSettings()
	failsafe := func() desired.Failsafe {
		return desired.Failsafe{
			Protocol: pick(c.dice, policy.TCP, policy.UDP, policy.SCTP), Port: pick(c.dice, uint16(80), 81, 443, 30081),
			Net: pick(c.dice, netip.Prefix{}, netip.MustParsePrefix("192.168.7.0/24"), netip.MustParsePrefix("fd08::/16")),
		}
	}
	s.FailsafeIn = append(s.FailsafeIn, some(c.dice, 2, failsafe)...)
	s.FailsafeOut = append(s.FailsafeOut, some(c.dice, 2, failsafe)...)
	s.PodToHost = pick(c.dice, policy.Allow, policy.Allow, policy.Pass, policy.Deny)
	s.Invalid = pick(c.dice, policy.Deny, policy.Deny, policy.Allow)
	s.Loops = pick(c.dice, policy.Deny, policy.Pass)
	s.DropRecords = !c.one(4)
	s.Marks = pick(c.dice, s.Marks, s.Marks, s.Marks, 0xf1f00000)
	c.settings, c.law.Rules = s, s.Rules()
	c.tell("default", &event.NodeConfiguration{
		Name: "default", PodToHost: &s.PodToHost, Invalid: &s.Invalid, Loops: &s.Loops, FailsafeIn: &s.FailsafeIn, FailsafeOut: &s.FailsafeOut,
		DropRecords: &s.DropRecords, Marks: &s.Marks,
	}, s)
	c.tell("eth0", &event.LocalInterface{Name: "eth0", Addrs: addrsOf("host")}, nil)
	c.tell("eth1", &event.LocalInterface{Name: "eth1", Addrs: addrsOf("host1")}, nil)
}

// host returns the node as policy/eval finds it.
func (c *cluster) host() *eval.Host {
	return c.law.Asker().Host("here", desired.InterfacePrefix, func(a netip.Addr) string {
		for name := range siteAddrs {
			if slices.Contains(addrsOf(name), a) {
				return interfaceOf(name)
			}
		}
		return ""
	})
}

// interfaceOf returns the interface of the node at which a site's address is.
func interfaceOf(site string) string {
	switch {
	case slices.Contains(pods, site):
		return desired.HostInterface("test", site)
	case site == "host":
		return "eth0"
	case site == "host1":
		return "eth1"
	}
	return ""
}
