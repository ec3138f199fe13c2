package controller

import (
	"slices"
	"strings"
	"unique"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/annotation"
)

// slim drops what no loop reads before an object enters the cache: of 8,000
// blocks the lists of addresses alone would be most of the process's memory.
// Objects from the cache are therefore never written back whole.
func slim(obj any) (any, error) {
	if o, ok := obj.(metav1.Object); ok {
		o.SetManagedFields(nil)
		if _, service := obj.(*corev1.Service); service {
			o.SetAnnotations(annotation.Ours(o.GetAnnotations()))
		} else {
			o.SetAnnotations(nil)
		}
	}
	switch o := obj.(type) {
	case *koratv1.Block:
		o.Status.Addresses = nil
	case *koratv1.NodeNetwork:
		o.Status = koratv1.NodeNetworkStatus{
			Pools: o.Status.Pools, AgentVersion: o.Status.AgentVersion,
			Sessions: named(o.Status.Sessions), Policies: shareNames(o.Status.Policies), Conditions: silenceOf(o),
			Draining: o.Status.Draining, SessionSummary: o.Status.SessionSummary,
		}
	}
	return obj, nil
}

// named keeps of sessions those that BGPPeers ask for, and of each what tells
// whether it is up and why not; counters change too often to look at.
func named(sessions []koratv1.SessionStatus) []koratv1.SessionStatus {
	sessions = slices.DeleteFunc(sessions, func(s koratv1.SessionStatus) bool {
		return !strings.HasPrefix(s.Peer, koratv1.SessionPeerBGPPeer)
	})
	for i, s := range sessions {
		sessions[i] = koratv1.SessionStatus{Peer: s.Peer, Address: s.Address, State: s.State, LastError: s.LastError}
	}
	return slices.Clip(sessions)
}

// shareNames keeps the name of a policy once for however many nodes have it.
func shareNames(policies []koratv1.NodePolicyStatus) []koratv1.NodePolicyStatus {
	for i := range policies {
		p := &policies[i]
		p.Kind, p.Namespace, p.Name = unique.Make(p.Kind).Value(), unique.Make(p.Namespace).Value(), unique.Make(p.Name).Value()
	}
	return policies
}

// silenceOf keeps of a node's conditions what says that its agent is silent.
func silenceOf(n *koratv1.NodeNetwork) []metav1.Condition {
	if !isSilent(n) {
		return nil
	}
	return []metav1.Condition{*meta.FindStatusCondition(n.Status.Conditions, koratv1.ConditionReady)}
}
