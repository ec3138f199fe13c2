package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// hostsToldAnew: a node says something else of its host endpoints, or its agent fell
// silent or is heard of again.
var hostsToldAnew = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	was, is := e.ObjectOld.(*koratv1.NodeNetwork), e.ObjectNew.(*koratv1.NodeNetwork)
	return isSilent(was) != isSilent(is) || !equality.Semantic.DeepEqual(was.Status.HostEndpoints, is.Status.HostEndpoints)
}}

// host returns what says what the status of a HostEndpoint has to be.
func (c cluster) host(seen changes) func(context.Context, *koratv1.HostEndpoint) (change, error) {
	return func(ctx context.Context, h *koratv1.HostEndpoint) (change, error) {
		exists, err := c.hasNode(ctx, h.Spec.Node)
		if err != nil {
			return change{}, err
		}
		n := &koratv1.NodeNetwork{}
		if err := c.Get(ctx, client.ObjectKey{Name: h.Spec.Node}, n); client.IgnoreNotFound(err) != nil {
			return change{}, fmt.Errorf("NodeNetwork %s: %w", h.Spec.Node, err)
		}
		now := time.Now()
		s := standing{
			node: n, problem: hostProblem(h, exists),
			fresh: now.Sub(seen.of(h, h.Status.Conditions, now)) < settle,
		}
		want := s.conditions(h)
		return change{conditionsOnly{h.Status.Conditions}, conditionsOnly{want}, worthTelling(h.Status.Conditions), worthTelling(want)}, nil
	}
}

// standing is what is known of a HostEndpoint.
type standing struct {
	node    *koratv1.NodeNetwork // without a name: there is none
	problem finding              // of the object, as far as its node need not be asked
	fresh   bool                 // it was changed a moment ago, so that its node may not have told
}

func (s standing) conditions(h *koratv1.HostEndpoint) []metav1.Condition {
	told := s.told(h.Name)
	heard := s.node.Name != "" && !isSilent(s.node)
	if s.problem.reason == "" && told == nil && heard && !s.fresh {
		s.problem = finding{koratv1.ReasonNoInterface, s.nowhere(h)}
	}
	conditions := accepted(h.Status.Conditions, s.problem, h.Generation)
	status, f := metav1.ConditionFalse, finding{reason: koratv1.ReasonPending, message: "its node does not have it yet"}
	switch {
	case s.problem.reason != "":
		f = finding{s.problem.reason, "it is not in use"}
	case !heard:
		status, f = metav1.ConditionUnknown, finding{koratv1.ReasonAgentSilent, notHeard([]string{h.Spec.Node})}
	case told == nil || h.Spec.InterfaceName != "" && !slices.Contains(told.Interfaces, h.Spec.InterfaceName):
		status, f = metav1.ConditionUnknown, finding{koratv1.ReasonPending, "changed a moment ago: its node has not told yet"}
	case told.Problem != "":
		f = finding{koratv1.ReasonKernelError, told.Problem}
	case told.Programmed:
		status, f = metav1.ConditionTrue, finding{reason: koratv1.ReasonProgrammed}
	}
	c := f.condition(koratv1.ConditionProgrammed, false, h.Generation)
	c.Status = status
	meta.SetStatusCondition(&conditions, c)
	return conditions
}

// told returns what the node says of a host endpoint, or nil.
func (s standing) told(name string) *koratv1.NodeHostEndpointStatus {
	for i := range s.node.Status.HostEndpoints {
		if one := &s.node.Status.HostEndpoints[i]; one.Name == name {
			return one
		}
	}
	return nil
}

// nowhere says why a HostEndpoint stands for no interface.
func (s standing) nowhere(h *koratv1.HostEndpoint) string {
	if h.Spec.InterfaceName == "" {
		return fmt.Sprintf("spec.expectedIPs: no interface of node %s has one of them that no other HostEndpoint stands for", h.Spec.Node)
	}
	for _, other := range s.node.Status.HostEndpoints {
		if slices.Contains(other.Interfaces, h.Spec.InterfaceName) {
			return fmt.Sprintf("spec.interfaceName: %q: HostEndpoint %s stands for it: of several the first by name does", h.Spec.InterfaceName, other.Name)
		}
	}
	return fmt.Sprintf("spec.interfaceName: %q: node %s does not tell of it", h.Spec.InterfaceName, h.Spec.Node)
}
