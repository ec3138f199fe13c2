package calc_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/selector"
)

// Short ways to say things, for tests that tell a story.

type evs = []event.Event

func addrs(texts ...string) (out []netip.Addr) {
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// labels reads "k=v k=v".
func labels(text string) selector.Labels {
	m := map[string]string{}
	for _, f := range strings.Fields(text) {
		k, v, _ := strings.Cut(f, "=")
		m[k] = v
	}
	return selector.MakeLabels(m)
}

func pod(key, node, label string, ips ...string) event.Event {
	ns, name, _ := strings.Cut(key, "/")
	return event.Set(key, &event.Pod{Namespace: ns, Name: name, Node: node, Labels: labels(label), Addrs: addrs(ips...)})
}

func namespace(name, label string) event.Event {
	return event.Set(name, &event.Namespace{Name: name, Labels: labels(label)})
}

func endpoint(iface, pod string, generation uint64, ips ...string) event.Event {
	ns, name, _ := strings.Cut(pod, "/")
	return event.Set(iface, &event.Endpoint{
		Handle: ipam.Handle{Namespace: ns, Pod: name}, Interface: iface, Addrs: addrs(ips...), Generation: generation,
	})
}

// known gives a pod or an endpoint a UID.
func known(ev event.Event, uid byte) event.Event {
	switch v := ev.Value.(type) {
	case *event.Pod:
		p := *v
		p.UID = event.UID{uid}
		return event.Set(ev.Key.Name, &p)
	case *event.Endpoint:
		ep := *v
		ep.UID = event.UID{uid}
		return event.Set(ev.Key.Name, &ep)
	}
	panic("bug: a thing without UID")
}

func policyKey(key string) policy.Key {
	ns, name, _ := strings.Cut(key, "/")
	return policy.Key{Namespace: ns, Name: name}
}

// isolate makes a policy of the directions for the pods with one label of its
// namespace, that allows what the scopes select.
func isolate(key string, types policy.Direction, app string, from ...policy.Scope) event.Event {
	k := policyKey(key)
	p := &policy.Policy{
		Key: k, Tier: policy.DefaultTier, Order: 1000, Types: types,
		Subject: policy.Scope{Namespace: k.Namespace, Pods: selector.Equals("app", app)},
	}
	for _, s := range from {
		r := policy.Rule{Action: policy.Allow, Peers: []policy.Peer{{Scope: &s}}}
		p.Ingress, p.Egress = append(p.Ingress, r), append(p.Egress, r)
	}
	return event.Set(k.String(), &event.Policy{Policy: p})
}

// apps selects pods of a namespace with the label app, namespaces with the
// label env those of all namespaces that have it.
func apps(ns, app string) policy.Scope {
	return policy.Scope{Namespace: ns, Pods: selector.Equals("app", app)}
}

func inEnv(env string) policy.Scope {
	return policy.Scope{Namespaces: selector.Equals("env", env)}
}

func block(cidr, node string) event.Event {
	return event.Set(cidr, &event.Block{Block: ipam.Block{CIDR: netip.MustParsePrefix(cidr), Owner: ipam.Owner{Node: node}}})
}

func pool(cidr string) event.Event {
	return event.Set(cidr, &event.Pool{Pool: ipam.Pool{Name: cidr, CIDR: netip.MustParsePrefix(cidr)}})
}

func learned(prefix string, hops ...string) event.Event {
	return event.Set(prefix, &event.Learned{Learned: bgp.Learned{Prefix: netip.MustParsePrefix(prefix), NextHops: addrs(hops...)}})
}

func node(name, label string, ips ...string) event.Event {
	return event.Set(name, &event.Node{Name: name, Labels: labels(label), Addrs: addrs(ips...)})
}

func network(name string, asn uint32) event.Event {
	return event.Set(name, &event.NodeNetwork{Name: name, ASN: asn})
}

func bgpConfig(mesh bool) event.Event {
	return event.Set("default", &event.BGP{ASN: 64512, Mesh: mesh, ListenPort: 179, RestartTime: 120 * time.Second})
}

func peer(name string, nodes *selector.Selector, addr string, asn uint32) event.Event {
	return event.Set(name, &event.Peer{Name: name, Nodes: nodes, FromNode: true, Session: bgp.Peer{
		Addr: netip.MustParseAddr(addr), Port: 179, ASN: asn,
		Advertise: bgp.Hosts, Hold: 9 * time.Second, Keepalive: 3 * time.Second,
	}})
}

// gone ends a thing.
func gone(ev event.Event) event.Event { return event.Event{Key: ev.Key} }

// ready returns a run that heard everyone and was told evs.
func ready(t *testing.T, evs ...event.Event) *run {
	t.Helper()
	r := newRun(t)
	r.synced(everyone)
	r.tell(evs...)
	return r
}

// tell puts events and flushes.
func (r *run) tell(evs ...event.Event) {
	r.Helper()
	r.put(evs...)
	r.flush()
}

// members returns the addresses in the set of a scope, "absent" without one.
func (r *run) members(s policy.Scope) string {
	set, exists := r.world.Sets[compile.SetIDOf(policy.Set{Scope: s})]
	if !exists {
		return "absent"
	}
	return texts(set, func(m ir.Member) string { return m.Prefix.Addr().String() })
}
