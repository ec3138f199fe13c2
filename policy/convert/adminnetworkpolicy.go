package convert

import (
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
	anp "sigs.k8s.io/network-policy-api/apis/v1alpha1"

	"github.com/koratnet/korat/policy"
)

// AdminNetworkPolicy converts an AdminNetworkPolicy, the older form of a
// ClusterNetworkPolicy of tier Admin. The policy is never nil. Rules keep their
// places, so that an index in a trace is the index in the object.
func AdminNetworkPolicy(o *anp.AdminNetworkPolicy) (*policy.Policy, []Problem) {
	c := newClusterPolicy(policy.AdminNetworkPolicy, o.Name, policy.AdminTier, o.Spec.Priority)
	c.subject(clusterSubject{o.Spec.Subject.Namespaces, adminPods(o.Spec.Subject.Pods)})
	for i, r := range o.Spec.Ingress {
		c.adminIngress(i, r.Name, string(r.Action), r.From, r.Ports)
	}
	for i, r := range o.Spec.Egress {
		var peers []clusterPeer
		for _, p := range r.To {
			peers = append(peers, clusterPeer{
				namespaces: p.Namespaces, pods: adminPods(p.Pods), nodes: p.Nodes,
				networks: texts(p.Networks), domains: texts(p.DomainNames),
			})
		}
		c.adminEgress(i, r.Name, string(r.Action), peers, r.Ports)
	}
	return c.done()
}

// BaselineAdminNetworkPolicy converts a BaselineAdminNetworkPolicy. There is at
// most one, after all ClusterNetworkPolicies of tier Baseline. The policy is
// never nil.
func BaselineAdminNetworkPolicy(o *anp.BaselineAdminNetworkPolicy) (*policy.Policy, []Problem) {
	c := newClusterPolicy(policy.BaselineAdminNetworkPolicy, o.Name, policy.BaselineTier, 0)
	c.policy.Order = math.Inf(1)
	c.subject(clusterSubject{o.Spec.Subject.Namespaces, adminPods(o.Spec.Subject.Pods)})
	for i, r := range o.Spec.Ingress {
		c.baseline(fmt.Sprintf("spec.ingress[%d]", i), string(r.Action))
		c.adminIngress(i, r.Name, string(r.Action), r.From, r.Ports)
	}
	for i, r := range o.Spec.Egress {
		c.baseline(fmt.Sprintf("spec.egress[%d]", i), string(r.Action))
		var peers []clusterPeer
		for _, p := range r.To {
			peers = append(peers, clusterPeer{
				namespaces: p.Namespaces, pods: adminPods(p.Pods), nodes: p.Nodes, networks: texts(p.Networks),
			})
		}
		c.adminEgress(i, r.Name, string(r.Action), peers, r.Ports)
	}
	return c.done()
}

// baseline reports an action that the baseline does not have. Nothing comes
// after it, so to pass means what it means anywhere in the last tier.
func (c *clusterPolicy) baseline(field, action string) {
	if action == "Pass" {
		c.add(field+".action", action, "Allow or Deny", "it leaves the baseline")
	}
}

func (c *clusterPolicy) adminIngress(i int, name, action string, from []anp.AdminNetworkPolicyIngressPeer, ports *[]anp.AdminNetworkPolicyPort) {
	field := fmt.Sprintf("spec.ingress[%d]", i)
	rule := clusterRule{field: field, name: name, action: action, accept: "Allow", list: "from", ports: c.adminPorts(field, ports)}
	for _, p := range from {
		rule.peers = append(rule.peers, clusterPeer{namespaces: p.Namespaces, pods: adminPods(p.Pods)})
	}
	c.rule(policy.Ingress, rule)
}

func (c *clusterPolicy) adminEgress(i int, name, action string, to []clusterPeer, ports *[]anp.AdminNetworkPolicyPort) {
	field := fmt.Sprintf("spec.egress[%d]", i)
	c.rule(policy.Egress, clusterRule{
		field: field, name: name, action: action, accept: "Allow", list: "to", peers: to, ports: c.adminPorts(field, ports),
	})
}

func adminPods(p *anp.NamespacedPod) *namespacedPods {
	if p == nil {
		return nil
	}
	return &namespacedPods{p.NamespaceSelector, p.PodSelector}
}

// adminPorts returns the conversion of a rule's list of ports.
func (c *clusterPolicy) adminPorts(rule string, list *[]anp.AdminNetworkPolicyPort) func(string) ([]policy.Port, bool) {
	return func(effect string) ([]policy.Port, bool) {
		if list == nil || len(*list) == 0 {
			return nil, true
		}
		if effect == ruleDropped {
			effect = portDropped
		}
		ports, good := []policy.Port{}, true
		for i, p := range *list {
			port, ok := c.adminPort(fmt.Sprintf("%s.ports[%d]", rule, i), p, effect)
			if good = good && ok; ok {
				ports = append(ports, port)
			}
		}
		return ports, good
	}
}

// adminPort converts one element, of which exactly one field is set.
func (c *clusterPolicy) adminPort(field string, p anp.AdminNetworkPolicyPort, effect string) (policy.Port, bool) {
	set := 0
	for _, is := range [...]bool{p.PortNumber != nil, p.PortRange != nil, p.NamedPort != nil} {
		if is {
			set++
		}
	}
	switch {
	case set != 1 || p.NamedPort != nil && *p.NamedPort == "":
		c.add(field, fmt.Sprintf("%d fields", set), "exactly one of portNumber, portRange and namedPort", effect)
		return policy.Port{}, false
	case p.NamedPort != nil:
		return policy.Port{Name: *p.NamedPort}, true
	case p.PortNumber != nil:
		n := p.PortNumber
		return c.adminNumbers(field+".portNumber", n.Protocol, n.Port, n.Port, effect)
	}
	return c.adminNumbers(field+".portRange", p.PortRange.Protocol, p.PortRange.Start, p.PortRange.End, effect)
}

func (c *clusterPolicy) adminNumbers(field string, protocol corev1.Protocol, first, last int32, effect string) (policy.Port, bool) {
	p := policy.TCP
	if protocol != "" {
		var ok bool
		if p, ok = c.protocol(field+".protocol", &protocol, effect); !ok {
			return policy.Port{}, false
		}
	}
	return c.portNumbers(field, p, first, last, effect)
}
