package convert

import (
	"fmt"

	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/koratnet/korat/policy"
)

// ClusterNetworkPolicy converts a ClusterNetworkPolicy. The policy is never nil.
// Rules keep their places, so that an index in a trace is the index in the object.
func ClusterNetworkPolicy(o *cnp.ClusterNetworkPolicy) (*policy.Policy, []Problem) {
	tier := policy.AdminTier
	if o.Spec.Tier == cnp.BaselineTier {
		tier = policy.BaselineTier
	}
	c := newClusterPolicy(policy.ClusterNetworkPolicy, o.Name, tier, o.Spec.Priority)
	if o.Spec.Tier != cnp.AdminTier && o.Spec.Tier != cnp.BaselineTier {
		c.add("spec.tier", string(o.Spec.Tier), "Admin or Baseline", "the policy is in the tier Admin, and "+onlyDenies)
		c.closed = true
	}
	c.subject(clusterSubject{o.Spec.Subject.Namespaces, clusterPods(o.Spec.Subject.Pods)})
	for i, r := range o.Spec.Ingress {
		field := fmt.Sprintf("spec.ingress[%d]", i)
		rule := clusterRule{field: field, name: r.Name, action: string(r.Action), accept: "Accept", list: "from", ports: c.protocols(field, r.Protocols)}
		for _, p := range r.From {
			rule.peers = append(rule.peers, clusterPeer{namespaces: p.Namespaces, pods: clusterPods(p.Pods)})
		}
		c.rule(policy.Ingress, rule)
	}
	for i, r := range o.Spec.Egress {
		field := fmt.Sprintf("spec.egress[%d]", i)
		rule := clusterRule{field: field, name: r.Name, action: string(r.Action), accept: "Accept", list: "to", ports: c.protocols(field, r.Protocols)}
		for _, p := range r.To {
			rule.peers = append(rule.peers, clusterPeer{
				namespaces: p.Namespaces, pods: clusterPods(p.Pods), nodes: p.Nodes,
				networks: texts(p.Networks), domains: texts(p.DomainNames),
			})
		}
		c.rule(policy.Egress, rule)
	}
	return c.done()
}

func clusterPods(p *cnp.NamespacedPod) *namespacedPods {
	if p == nil {
		return nil
	}
	return &namespacedPods{p.NamespaceSelector, p.PodSelector}
}

// texts returns the list as plain strings, nil if it is nil.
func texts[T ~string](list []T) []string {
	if list == nil {
		return nil
	}
	out := make([]string, len(list))
	for i, t := range list {
		out[i] = string(t)
	}
	return out
}

// protocols returns the conversion of a rule's list of protocols.
func (c *clusterPolicy) protocols(rule string, list []cnp.ClusterNetworkPolicyProtocol) func(string) ([]policy.Port, bool) {
	return func(effect string) ([]policy.Port, bool) {
		if len(list) == 0 {
			return nil, true
		}
		if effect == ruleDropped {
			effect = portDropped
		}
		ports, good := []policy.Port{}, true
		for i, p := range list {
			port, ok := c.protocolMatch(fmt.Sprintf("%s.protocols[%d]", rule, i), p, effect)
			if good = good && ok; ok {
				ports = append(ports, port)
			}
		}
		return ports, good
	}
}

// protocolMatch converts one element, of which exactly one field is set.
func (c *clusterPolicy) protocolMatch(field string, p cnp.ClusterNetworkPolicyProtocol, effect string) (policy.Port, bool) {
	set := 0
	var number *cnp.Port
	var protocol policy.Protocol
	if p.TCP != nil {
		set, protocol, number, field = set+1, policy.TCP, p.TCP.DestinationPort, field+".tcp"
	}
	if p.UDP != nil {
		set, protocol, number, field = set+1, policy.UDP, p.UDP.DestinationPort, field+".udp"
	}
	if p.SCTP != nil {
		set, protocol, number, field = set+1, policy.SCTP, p.SCTP.DestinationPort, field+".sctp"
	}
	if p.DestinationNamedPort != "" {
		set++
	}
	switch {
	case set != 1:
		c.add(field, fmt.Sprintf("%d fields", set), "exactly one of tcp, udp, sctp and destinationNamedPort", effect)
		return policy.Port{}, false
	case p.DestinationNamedPort != "":
		return policy.Port{Name: p.DestinationNamedPort}, true
	case number == nil:
		return policy.Port{Protocol: protocol}, true
	case number.Range == nil:
		return c.portNumbers(field+".destinationPort.number", protocol, number.Number, number.Number, effect)
	case number.Number != 0:
		c.add(field+".destinationPort", "number and range", "either a number or a range", effect)
		return policy.Port{}, false
	}
	return c.portNumbers(field+".destinationPort.range", protocol, number.Range.Start, number.Range.End, effect)
}
