package controller

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/bgp/convert"
	"github.com/koratnet/korat/policy/selector"
)

// A node is what a BGPPeer's status depends on of a Node and its NodeNetwork.
type node struct {
	name     string
	labels   selector.Labels
	sessions []koratv1.SessionStatus // of BGPPeers, as the agent reports them
}

// surroundings are what a BGPPeer's status depends on beside itself.
type surroundings struct {
	peers   []koratv1.BGPPeer
	filters []koratv1.BGPFilter
	nodes   []node
}

// peerStatus says what p's status is. Conditions keep the time of their last
// change.
func peerStatus(p *koratv1.BGPPeer, all surroundings) koratv1.BGPPeerStatus {
	s := koratv1.BGPPeerStatus{Conditions: p.Status.DeepCopy().Conditions}
	accepted := finding{reason: koratv1.ReasonAccepted}
	chosen, f := talkers(&p.Spec, all.nodes)
	if f.reason == "" {
		f = filtersProblem(p, all.filters)
	}
	if f.reason == "" {
		f = conflict(p, all.peers, chosen)
	}
	ok := f.reason == ""
	if !ok {
		accepted = f
	}
	up, down := 0, ""
	for _, n := range chosen {
		if problem := missing(p.Name, n); problem == "" {
			up++
		} else if down == "" {
			down = problem
		}
	}
	s.Established, s.Desired = int32(up), int32(len(chosen))
	s.Sessions = fmt.Sprintf("%d/%d", up, len(chosen))
	established := finding{reason: koratv1.ReasonAllEstablished}
	switch {
	case len(chosen) == 0:
		established = finding{koratv1.ReasonNoSessions, fmt.Sprintf("spec.nodeSelector: %q chooses no node", p.Spec.NodeSelector)}
		if p.Spec.PeerSelector != "" {
			established.message += fmt.Sprintf(" that has a peer among spec.peerSelector: %q", p.Spec.PeerSelector)
		}
	case up+1 < len(chosen):
		established = finding{koratv1.ReasonSessionsDown, fmt.Sprintf("%d nodes have no session, among them %s", len(chosen)-up, down)}
	case up < len(chosen):
		established = finding{koratv1.ReasonSessionsDown, down}
	}
	meta.SetStatusCondition(&s.Conditions, accepted.condition(koratv1.ConditionAccepted, ok, p.Generation))
	meta.SetStatusCondition(&s.Conditions, established.condition(koratv1.ConditionEstablished, established.reason == koratv1.ReasonAllEstablished, p.Generation))
	return s
}

// talkers returns the nodes that should have a session of a peer, by name, or what
// is wrong with its selectors. Where nodes are the peer, those of both sides have
// one, if the other side has somebody else.
func talkers(s *koratv1.BGPPeerSpec, nodes []node) ([]node, finding) {
	sel, err := selector.Parse(s.NodeSelector)
	if err != nil {
		return nil, selectorProblem("spec.nodeSelector", s.NodeSelector)
	}
	chosen := selected(sel, nodes)
	if s.PeerSelector == "" {
		return chosen, finding{}
	}
	if sel, err = selector.Parse(s.PeerSelector); err != nil {
		return nil, selectorProblem("spec.peerSelector", s.PeerSelector)
	}
	others := selected(sel, nodes)
	var out []node
	for _, n := range nodes {
		if among(n, chosen) && somebodyElse(n, others) || among(n, others) && somebodyElse(n, chosen) {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b node) int { return cmp.Compare(a.name, b.name) })
	return out, finding{}
}

func among(n node, side []node) bool {
	_, found := slices.BinarySearchFunc(side, n.name, func(x node, name string) int { return cmp.Compare(x.name, name) })
	return found
}

// somebodyElse reports whether a side has somebody else than n.
func somebodyElse(n node, side []node) bool {
	return len(side) > 1 || len(side) == 1 && side[0].name != n.name
}

// filtersProblem looks for a filter that p names and cannot have.
func filtersProblem(p *koratv1.BGPPeer, filters []koratv1.BGPFilter) finding {
	for i, name := range p.Spec.Filters {
		at := slices.IndexFunc(filters, func(f koratv1.BGPFilter) bool { return f.Name == name })
		if at < 0 {
			return finding{koratv1.ReasonUnknownFilter, fmt.Sprintf("spec.filters[%d]: %q: expected the name of a BGPFilter; there is no session until there is one", i, name)}
		}
		if _, problem := convert.Filter(&filters[at]); problem != "" {
			return finding{koratv1.ReasonUnknownFilter, fmt.Sprintf("spec.filters[%d]: BGPFilter %q is not accepted, so that there is no session: %s", i, name, problem)}
		}
	}
	return finding{}
}

// selected returns the nodes that sel selects, by name.
func selected(sel *selector.Selector, nodes []node) []node {
	var out []node
	for _, n := range nodes {
		if sel.Matches(n.labels) {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b node) int { return cmp.Compare(a.name, b.name) })
	return out
}

// nodeConfigurationStatus says what n's status is among all nodes.
func nodeConfigurationStatus(n *koratv1.NodeConfiguration, nodes []node) koratv1.NodeConfigurationStatus {
	f, chosen := finding{}, 0
	if sel, err := selector.Parse(n.Spec.NodeSelector); err != nil {
		f = selectorProblem("spec.nodeSelector", n.Spec.NodeSelector)
	} else {
		chosen = len(selected(sel, nodes))
	}
	return koratv1.NodeConfigurationStatus{Conditions: accepted(n.Status.Conditions, f, n.Generation), Nodes: int32(chosen)}
}

// conflict looks for a peer that asks one of the chosen nodes for a session with
// the same address. Of such peers the nodes take the one with the smallest name.
func conflict(p *koratv1.BGPPeer, all []koratv1.BGPPeer, chosen []node) finding {
	for i := range all {
		o := &all[i]
		if o.Spec.Address != p.Spec.Address || o.Spec.Interface != p.Spec.Interface || p.Spec.PeerSelector != "" || o.Name >= p.Name {
			continue
		}
		sel, err := selector.Parse(o.Spec.NodeSelector)
		if err != nil {
			continue
		}
		if common := selected(sel, chosen); len(common) > 0 {
			field, value := "address", p.Spec.Address
			if value == "" {
				field, value = "interface", p.Spec.Interface
			}
			return finding{koratv1.ReasonConflict, fmt.Sprintf(
				"spec.%s: %q: BGPPeer %s asks node %s for a session with it too and goes first: expected one BGPPeer for each on a node",
				field, value, o.Name, common[0].name)}
		}
	}
	return finding{}
}

// missing says why n does not have the sessions of the peer, nothing if it has
// them: one, or where nodes are the peer several.
func missing(peer string, n node) string {
	problem := fmt.Sprintf("node %s: its agent reports no such session", n.name)
	for _, s := range n.sessions {
		switch {
		case s.Peer != koratv1.SessionPeerBGPPeer+peer:
		case s.State == koratv1.SessionEstablished:
			problem = ""
		case s.LastError == "":
			return fmt.Sprintf("node %s: %s is %s", n.name, s.Address, s.State)
		default:
			return fmt.Sprintf("node %s: %s is %s: %s", n.name, s.Address, s.State, s.LastError)
		}
	}
	return problem
}

// joined makes nodes of what the cache holds.
func joined(labels []metav1.PartialObjectMetadata, networks []koratv1.NodeNetwork) []node {
	sessions := make(map[string][]koratv1.SessionStatus, len(networks))
	for i := range networks {
		sessions[networks[i].Name] = networks[i].Status.Sessions
	}
	nodes := make([]node, 0, len(labels))
	for i := range labels {
		n := &labels[i]
		nodes = append(nodes, node{n.Name, selector.MakeLabels(n.Labels), sessions[n.Name]})
	}
	return nodes
}
