package controller

import (
	"fmt"
	"slices"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/bgp/convert"
	"github.com/koratnet/korat/policy/selector"
)

// filterStatus says what f's status is among all peers.
func filterStatus(f *koratv1.BGPFilter, peers []koratv1.BGPPeer) koratv1.BGPFilterStatus {
	found := finding{}
	if _, problem := convert.Filter(f); problem != "" {
		found = finding{koratv1.ReasonInvalid, problem}
	}
	s := koratv1.BGPFilterStatus{Conditions: accepted(f.Status.Conditions, found, f.Generation)}
	for i := range peers {
		if slices.Contains(peers[i].Spec.Filters, f.Name) {
			s.Peers++
		}
	}
	return s
}

// advertisementStatus says what a's status is among all peers, pools and nodes.
func advertisementStatus(a *koratv1.BGPAdvertisement, peers []koratv1.BGPPeer, pools []koratv1.IPPool, nodes []node) koratv1.BGPAdvertisementStatus {
	s := koratv1.BGPAdvertisementStatus{}
	found := advertisementProblem(&a.Spec)
	if found.reason == "" {
		byNode, _ := selector.Parse(a.Spec.NodeSelector)
		byPeer, _ := selector.Parse(a.Spec.PeerSelector)
		s.Nodes = int32(len(selected(byNode, nodes)))
		for i := range peers {
			if byPeer.Matches(convert.PeerLabels(&peers[i])) {
				s.Peers++
			}
		}
		for i, name := range a.Spec.Pools {
			if !slices.ContainsFunc(pools, func(p koratv1.IPPool) bool { return p.Name == name }) {
				found = finding{koratv1.ReasonUnknownPool, fmt.Sprintf("spec.pools[%d]: %q: expected the name of an IPPool; all else is announced", i, name)}
				break
			}
		}
	}
	s.Conditions = accepted(a.Status.Conditions, found, a.Generation)
	return s
}

// advertisementProblem says why nobody is told of an advertisement.
func advertisementProblem(s *koratv1.BGPAdvertisementSpec) finding {
	for _, sel := range []struct{ field, text string }{
		{"spec.nodeSelector", s.NodeSelector}, {"spec.peerSelector", s.PeerSelector}, {"spec.services.selector", serviceSelector(s)},
	} {
		if selectorError(sel.text) != nil {
			return selectorProblem(sel.field, sel.text)
		}
	}
	if _, _, problem := convert.Communities(s.Communities); problem != "" {
		return finding{koratv1.ReasonInvalid, "spec.communities: " + problem}
	}
	return finding{}
}

func serviceSelector(s *koratv1.BGPAdvertisementSpec) string {
	if s.Services == nil {
		return ""
	}
	return s.Services.Selector
}

// configurationProblem says what of c is not in use.
func configurationProblem(c *koratv1.BGPConfiguration) finding {
	if r := c.Spec.Reflectors; r != nil && selectorError(r.NodeSelector) != nil {
		return selectorProblem("spec.reflectors.nodeSelector", r.NodeSelector)
	}
	return finding{}
}
