package calc_test

import (
	"fmt"
	"net/netip"

	"github.com/koratnet/korat/felix/calc"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

// cluster is a model of a cluster: 1,000 namespaces, of which ns-0 has 1,000
// pods, 2,500 nodes, 200 pods on this one, and 10,000 policies in three tiers.
// Eight in ten select a role in a namespace, the others an app everywhere. Each
// allows from one of 500 apps, and from one of 500 groups of namespaces; one in
// four names a port.
type cluster struct{ pods int }

const (
	clusterNamespaces = 1000
	clusterRoles      = 10
	clusterApps       = 1000
	clusterGroups     = 500
	clusterNodes      = 2500
	clusterPolicies   = 10_000
	clusterLocal      = 200
	clusterCrowd      = 1000 // pods of ns-0
)

func nsName(i int) string    { return fmt.Sprint("ns-", i%clusterNamespaces) }
func appName(i int) string   { return fmt.Sprint("app-", i%clusterApps) }
func roleName(i int) string  { return fmt.Sprint("role-", i%clusterRoles) }
func groupName(i int) string { return fmt.Sprint("group-", i%clusterGroups) }

// nsOf returns the namespace of pod i.
func (c cluster) nsOf(i int) string {
	if i%clusterNamespaces < clusterCrowd*clusterNamespaces/c.pods {
		return nsName(0)
	}
	return nsName(i)
}

// local reports whether pod i runs here: spread over the namespaces.
func (c cluster) local(i int) bool { return i%(c.pods/clusterLocal-1) == 0 }

// pod returns pod i; each version of it has another label and address.
func (c cluster) pod(i, version int) event.Event {
	node := fmt.Sprint("node-", 1+i%(clusterNodes-1))
	if c.local(i) {
		node = "me"
	}
	p := &event.Pod{
		Namespace: c.nsOf(i), Name: fmt.Sprint("pod-", i), Node: node,
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10 + byte(version&1), byte(i >> 16), byte(i >> 8), byte(i)})},
		Labels: selector.MakeLabels(map[string]string{
			"app": appName(i/7 + version), "role": roleName(i/clusterNamespaces + version), "tier": fmt.Sprint("tier-", i%3),
			"version": fmt.Sprint("v", i%7), "pod-template-hash": fmt.Sprint("h", i%5000),
		}),
		Account: "default", Ports: []policy.NamedPort{{Name: "http", Protocol: policy.TCP, Port: 8080}},
	}
	return event.Set(p.Namespace+"/"+p.Name, p)
}

func (c cluster) endpoint(i int) event.Event {
	pod := c.pod(i, 0).Value.(*event.Pod)
	iface := fmt.Sprint("kor", i)
	return event.Set(iface, &event.Endpoint{
		Handle:    ipam.Handle{Namespace: pod.Namespace, Pod: pod.Name},
		Interface: iface, Addrs: pod.Addrs, Generation: uint64(i),
	})
}

// namespace returns a namespace of a group.
func (c cluster) namespace(i, group int) event.Event {
	labels := map[string]string{"kubernetes.io/metadata.name": nsName(i), "group": groupName(group)}
	if i == 0 {
		labels["crowd"] = "yes"
	}
	return event.Set(nsName(i), &event.Namespace{Name: nsName(i), Labels: selector.MakeLabels(labels)})
}

// policy returns policy i; each version of it allows another port.
func (c cluster) policy(i, version int) event.Event {
	app := policy.Scope{Pods: selector.Equals("app", appName(2*i))}
	group := policy.Scope{Namespaces: selector.Equals("group", groupName(i))}
	p := &policy.Policy{
		Key:  policy.Key{Namespace: nsName(i), Name: fmt.Sprint("np-", i)},
		Tier: policy.DefaultTier, Order: 1000, Types: policy.Ingress,
		Subject: policy.Scope{Namespace: nsName(i), Pods: selector.Equals("role", roleName(i/clusterNamespaces))},
		Ingress: []policy.Rule{{
			Action: policy.Allow, Peers: []policy.Peer{{Scope: &app}, {Scope: &group}},
			Ports: []policy.Port{{Protocol: policy.TCP, First: 80, Last: 80 + uint16(version)}},
		}},
	}
	if i%10 >= 8 {
		p.Key = policy.Key{Kind: policy.GlobalNetworkPolicy, Name: fmt.Sprint("gnp-", i)}
		p.Tier = []string{"security", "platform"}[i%2]
		p.Subject = policy.Scope{Pods: selector.Equals("app", appName(i/10))}
		p.Ingress[0].Action = policy.Pass
	}
	if i%4 == 0 {
		p.Ingress[0].Ports = append(p.Ingress[0].Ports, policy.Port{Protocol: policy.TCP, Name: "http"})
	}
	return event.Set(p.Key.String(), &event.Policy{Policy: p})
}

// events returns all that the API server and the CNI plugin know.
func (c cluster) events() []event.Event {
	var all []event.Event
	for i, name := range []string{"security", "platform"} {
		all = append(all, event.Set(name, &event.Tier{Tier: policy.Tier{Name: name, Order: float64(i), End: policy.Pass}}))
	}
	for i := range clusterNamespaces {
		account := &event.ServiceAccount{Namespace: nsName(i), Name: "default"}
		all = append(all, c.namespace(i, i), event.Set(account.Namespace+"/"+account.Name, account))
	}
	for i := range c.pods {
		all = append(all, c.pod(i, 0))
		if c.local(i) {
			all = append(all, c.endpoint(i))
		}
	}
	for i := range clusterPolicies {
		all = append(all, c.policy(i, 0))
	}
	return append(all, c.newcomers())
}

// load returns an engine that knows the whole cluster.
func (c cluster) load() *calc.Engine { return learn(c.events()) }

// learn returns an engine that knows the events.
func learn(evs []event.Event) *calc.Engine {
	e := calc.New(calc.Config{Node: "me"})
	for _, ev := range evs {
		e.Put(ev)
	}
	e.Synced(event.API | event.CNI | event.Neighbours)
	e.Flush()
	return e
}

// twin returns a pod of this node that the policies of pod 0 select too.
func (c cluster) twin() (pod, endpoint event.Event) {
	p, ep := *c.pod(0, 0).Value.(*event.Pod), *c.endpoint(0).Value.(*event.Endpoint)
	p.Name, p.Addrs = "twin", []netip.Addr{netip.MustParseAddr("10.255.0.1")}
	ep.Handle.Pod, ep.Interface, ep.Addrs = p.Name, "kortwin", p.Addrs
	return event.Set(p.Namespace+"/"+p.Name, &p), event.Set(ep.Interface, &ep)
}

// newcomer returns a pod of this node with a policy that selects nobody else and
// allows to all pods of ns-0: a port by its number, and one by its name.
func (c cluster) newcomer() (pod, endpoint event.Event) {
	p, ep := *c.pod(0, 0).Value.(*event.Pod), *c.endpoint(0).Value.(*event.Endpoint)
	p.Namespace, p.Name, p.Addrs = nsName(1), "newcomer", []netip.Addr{netip.MustParseAddr("10.255.0.2")}
	p.Labels = selector.MakeLabels(map[string]string{"role": "newcomer"})
	ep.Handle, ep.Interface, ep.Addrs = ipam.Handle{Namespace: p.Namespace, Pod: p.Name}, "kornewcomer", p.Addrs
	return event.Set(p.Namespace+"/"+p.Name, &p), event.Set(ep.Interface, &ep)
}

// newcomers returns the policy of the newcomer.
func (c cluster) newcomers() event.Event {
	crowd := policy.Scope{Namespaces: selector.Equals("crowd", "yes")}
	p := &policy.Policy{
		Key: policy.Key{Namespace: nsName(1), Name: "newcomers"}, Tier: policy.DefaultTier, Order: 1000, Types: policy.Egress,
		Subject: policy.Scope{Namespace: nsName(1), Pods: selector.Equals("role", "newcomer")},
		Egress: []policy.Rule{{Action: policy.Allow, Peers: []policy.Peer{{Scope: &crowd}}, Ports: []policy.Port{
			{Protocol: policy.TCP, First: 80, Last: 80}, {Protocol: policy.TCP, Name: "http"},
		}}},
	}
	return event.Set(p.Key.String(), &event.Policy{Policy: p})
}

// remote returns the number of a pod of another node, a different one for each n.
func (c cluster) remote(n int) int {
	for i := n * 7919 % c.pods; ; i++ {
		if !c.local(i % c.pods) {
			return i % c.pods
		}
	}
}
