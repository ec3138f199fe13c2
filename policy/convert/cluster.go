package convert

import (
	"fmt"
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

// What happened to a rule of which a part could not be understood. The outcome
// must never be more permissive than without the rule, so what should deny, or
// hand over to others, denies everything.
const (
	ruleDropped   = "this rule matches nothing"
	ruleDeniesAll = "this rule denies everything"
	onlyDenies    = "only the rules of the policy that deny are in force"
	selectsNobody = "the policy selects nothing"
)

// clusterPolicy converts what ClusterNetworkPolicy, AdminNetworkPolicy and
// BaselineAdminNetworkPolicy have in common.
type clusterPolicy struct {
	problems
	policy *policy.Policy
	closed bool // only rules that deny are kept
}

// newClusterPolicy begins a policy of a tier.
func newClusterPolicy(kind policy.Kind, name, tier string, priority int32) *clusterPolicy {
	c := &clusterPolicy{policy: &policy.Policy{
		Key: policy.Key{Kind: kind, Name: name}, Tier: tier, Order: float64(priority),
	}}
	if priority < 0 || priority > 1000 {
		c.add("spec.priority", fmt.Sprint(priority), "a number from 0 to 1000", "it is used as it is")
	}
	return c
}

// clusterSubject is whom a policy selects: one of the two.
type clusterSubject struct {
	namespaces *metav1.LabelSelector
	pods       *namespacedPods
}

// namespacedPods selects pods by labels of theirs and of their namespaces.
type namespacedPods struct{ namespaces, pods metav1.LabelSelector }

func (c *clusterPolicy) subject(s clusterSubject) {
	const field = "spec.subject"
	var ok bool
	switch {
	case s.namespaces != nil && s.pods == nil:
		c.policy.Subject.Namespaces, ok = c.labelSelector(field+".namespaces", s.namespaces, onlyDenies)
	case s.pods != nil && s.namespaces == nil:
		c.policy.Subject, ok = c.pods(field+".pods", s.pods, onlyDenies)
	default:
		c.add(field, "", "either namespaces or pods", selectsNobody)
		c.policy.Subject = nobody()
		return
	}
	c.closed = c.closed || !ok
}

// nobody selects nothing.
func nobody() policy.Scope { return policy.Scope{Pods: selector.Not(selector.All())} }

func (c *clusterPolicy) pods(field string, p *namespacedPods, effect string) (policy.Scope, bool) {
	namespaces, good := c.labelSelector(field+".namespaceSelector", &p.namespaces, effect)
	pods, ok := c.labelSelector(field+".podSelector", &p.pods, effect)
	return policy.Scope{Namespaces: namespaces, Pods: pods}, good && ok
}

// clusterRule is a rule of either API.
type clusterRule struct {
	field  string // of the rule
	name   string
	action string
	accept string // what the API calls the action Allow
	peers  []clusterPeer
	list   string // the field of the peers within the rule
	// ports converts the rule's ports; nil means all traffic.
	ports func(effect string) (ports []policy.Port, ok bool)
}

// clusterPeer is a peer of either API: exactly one of its fields is set.
type clusterPeer struct {
	namespaces, nodes *metav1.LabelSelector
	pods              *namespacedPods
	networks, domains []string
}

// rule converts one rule and appends it to those of direction d.
func (c *clusterPolicy) rule(d policy.Direction, r clusterRule) {
	c.policy.Types |= d
	out := policy.Rule{Name: r.name}
	effect, understood := ruleDeniesAll, true
	switch r.action {
	case r.accept:
		out.Action, effect = policy.Allow, ruleDropped
	case "Deny":
	case "Pass":
		out.Action = policy.Pass
	default:
		c.add(r.field+".action", r.action, r.accept+", Deny or Pass", ruleDeniesAll)
		understood = false
	}
	if understood {
		understood = c.fill(&out, r, effect)
	}
	switch {
	case c.closed && out.Action != policy.Deny, !understood && out.Action == policy.Allow:
		out.Action, out.Peers = policy.Allow, []policy.Peer{} // keeps its place
	case !understood:
		out = policy.Rule{Action: policy.Deny, Name: r.name}
	}
	if d == policy.Ingress {
		c.policy.Ingress = append(c.policy.Ingress, out)
	} else {
		c.policy.Egress = append(c.policy.Egress, out)
	}
}

// fill converts the criteria of a rule. It reports whether they are understood
// as far as the rule's action needs: what accepts may match less than it says.
func (c *clusterPolicy) fill(out *policy.Rule, r clusterRule, effect string) bool {
	field := r.field + "." + r.list
	if len(r.peers) == 0 {
		c.add(field, "", "at least one peer", effect)
		return false
	}
	out.Peers = []policy.Peer{}
	all := true
	for i, p := range r.peers {
		peer, known, ok := c.peer(fmt.Sprintf("%s[%d]", field, i), p, effect)
		if !known {
			return false
		}
		out.Peers, all = append(out.Peers, peer), all && ok
	}
	ports, ok := r.ports(effect)
	out.Ports = ports
	return c.namesHavePods(field, *out, effect) && (all && ok || out.Action == policy.Allow)
}

// namesHavePods refuses names of ports for peers that have none, in rules that
// must not match less than they say.
func (c *clusterPolicy) namesHavePods(field string, r policy.Rule, effect string) bool {
	named := ""
	for _, p := range r.Ports {
		named += p.Name
	}
	if named == "" {
		return true
	}
	for i, p := range r.Peers {
		if p.Scope == nil && !p.Empty() || p.Scope != nil && p.Scope.Kinds()&policy.Pods == 0 {
			c.add(fmt.Sprintf("%s[%d]", field, i), named, "pods or namespaces, as others have no names of ports", effect)
			return r.Action == policy.Allow
		}
	}
	return true
}

// peer converts one peer. It is not known when no field is set, which means
// that the API has one that we have not heard of, and not ok when it matches
// less than it should.
func (c *clusterPolicy) peer(field string, p clusterPeer, effect string) (out policy.Peer, known, ok bool) {
	if effect == ruleDropped {
		effect = peerDropped
	}
	var s policy.Scope
	switch set := p.set(); {
	case set != 1:
		if effect == peerDropped {
			effect = ruleDropped
		}
		c.add(field, fmt.Sprintf("%d fields", set), "exactly one field that is known here", effect)
		return policy.Peer{}, false, false
	case p.namespaces != nil:
		s.Namespaces, ok = c.labelSelector(field+".namespaces", p.namespaces, effect)
	case p.pods != nil:
		s, ok = c.pods(field+".pods", p.pods, effect)
	case p.nodes != nil:
		s.Things = policy.Nodes
		s.Pods, ok = c.labelSelector(field+".nodes", p.nodes, effect)
	case p.networks != nil:
		return c.networks(field+".networks", p.networks, effect)
	default:
		c.add(field+".domainNames", fmt.Sprint(p.domains), "no domain names, as they are not supported", effect)
	}
	if !ok {
		return policy.Peer{}, true, false
	}
	return policy.Peer{Scope: &s}, true, true
}

// set returns how many fields are set.
func (p clusterPeer) set() int {
	n := 0
	for _, is := range [...]bool{p.namespaces != nil, p.nodes != nil, p.pods != nil, p.networks != nil, p.domains != nil} {
		if is {
			n++
		}
	}
	return n
}

func (c *clusterPolicy) networks(field string, list []string, effect string) (out policy.Peer, known, ok bool) {
	ok = true
	for i, text := range list {
		var net netip.Prefix
		if net, ok = c.cidr(fmt.Sprintf("%s[%d]", field, i), text, effect); !ok {
			return policy.Peer{}, true, false
		}
		out.Nets = append(out.Nets, net)
	}
	if len(list) == 0 {
		c.add(field, "", "at least one network", effect)
	}
	return out, true, len(list) > 0
}

// done returns what was converted.
func (c *clusterPolicy) done() (*policy.Policy, []Problem) { return c.policy, c.problems }

// portNumbers converts a range of ports.
func (ps *problems) portNumbers(field string, protocol policy.Protocol, first, last int32, effect string) (policy.Port, bool) {
	if first < 1 || last > 65535 || first > last {
		value := fmt.Sprint(first)
		if first != last {
			value = fmt.Sprintf("%d to %d", first, last)
		}
		ps.add(field, value, "numbers from 1 to 65535, in order", effect)
		return policy.Port{}, false
	}
	return policy.Port{Protocol: protocol, First: uint16(first), Last: uint16(last)}, true
}
