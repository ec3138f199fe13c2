package controller

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// encapsulate says in what nodes send packets to the pods of p, and keeps the order
// in which that changes, so that no packet comes to a node that cannot take it:
//
//	spec changes ─▶ every node receives the new mode ─▶ status.encapsulation is the
//	new, encapsulationBefore the old ─▶ every node sends in the new ─▶ before is empty
//
// Nodes receive what the spec and both fields of the status say. One step is over
// when every node says so whose agent is heard of. The next change of the spec
// waits until the last is over.
func encapsulate(s *koratv1.IPPoolStatus, p *koratv1.IPPool, nodes []koratv1.NodeNetwork) {
	wanted := cmp.Or(p.Spec.Encapsulation, koratv1.EncapsulationNone)
	now, before := cmp.Or(p.Status.Encapsulation, wanted), p.Status.EncapsulationBefore
	finding, done := finding{koratv1.ReasonInUse, fmt.Sprintf("every node sends in %s", now)}, true
	late := func(done func(koratv1.NodePoolStatus) bool) []string { return without(nodes, p.Name, done) }
	if before != "" {
		sending := func(n koratv1.NodePoolStatus) bool { return n.Sends == now }
		if names := late(sending); len(names) > 0 {
			done, finding.reason = false, koratv1.ReasonSwitching
			finding.message = fmt.Sprintf("nodes begin to send in %s instead of %s; still to come: %s", now, before, listed(names))
		} else {
			before = ""
		}
	}
	if before == "" && now != wanted {
		receiving := func(n koratv1.NodePoolStatus) bool {
			return n.Generation == p.Generation && slices.Contains(n.Receives, wanted)
		}
		names := late(receiving)
		done, finding.reason = false, koratv1.ReasonPreparing
		finding.message = fmt.Sprintf("nodes send in %s until all can receive %s; still to come: %s", now, wanted, listed(names))
		if len(names) == 0 {
			now, before = wanted, now
			finding.reason, finding.message = koratv1.ReasonSwitching, fmt.Sprintf("nodes begin to send in %s instead of %s", now, before)
		}
	}
	s.Encapsulation, s.EncapsulationBefore = now, before
	meta.SetStatusCondition(&s.Conditions, finding.condition(koratv1.ConditionEncapsulated, done, p.Generation))
}

// without returns the names of the nodes that are heard of and do not say of the
// pool what is asked, in order.
func without(nodes []koratv1.NodeNetwork, pool string, done func(koratv1.NodePoolStatus) bool) []string {
	var names []string
	for i := range nodes {
		n := &nodes[i]
		if n.Status.AgentVersion == "" || isSilent(n) {
			continue
		}
		if !slices.ContainsFunc(n.Status.Pools, func(s koratv1.NodePoolStatus) bool { return s.Name == pool && done(s) }) {
			names = append(names, n.Name)
		}
	}
	slices.Sort(names)
	return names
}

// listed names some of many.
func listed(names []string) string {
	const some = 5
	if len(names) > some {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:some], ", "), len(names)-some)
	}
	return strings.Join(names, ", ")
}

// modesChanged lets pass what may let a change of encapsulation go on.
var modesChanged = predicate.Funcs{
	UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*koratv1.NodeNetwork), e.ObjectNew.(*koratv1.NodeNetwork)
		return isSilent(before) != isSilent(after) || before.Status.AgentVersion != after.Status.AgentVersion ||
			!slices.EqualFunc(before.Status.Pools, after.Status.Pools, func(a, b koratv1.NodePoolStatus) bool {
				return a.Name == b.Name && a.Sends == b.Sends && a.Generation == b.Generation && slices.Equal(a.Receives, b.Receives)
			})
	},
}
