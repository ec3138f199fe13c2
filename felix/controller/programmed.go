package controller

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// settle is how long after a change of a policy every node that is heard of has
// told what became of it: agents tell every five seconds.
const settle = 12 * time.Second

// policyPart is the status of a policy, in which nothing is left out: what is not
// written would stay what it was.
type policyPart struct {
	Conditions      []metav1.Condition `json:"conditions"`
	Endpoints       int32              `json:"endpoints"`
	Nodes           int32              `json:"nodes"`
	ProgrammedNodes int32              `json:"programmedNodes"`
	Programmed      string             `json:"programmed"`
}

func partOf(s koratv1.PolicyStatus) policyPart {
	return policyPart{s.Conditions, s.Endpoints, s.Nodes, s.ProgrammedNodes, s.Programmed}
}

// A use is what one node says of a policy.
type use struct {
	node   string
	silent bool // it may be otherwise by now
	koratv1.NodePolicyStatus
}

// reports is what the cluster says of a policy.
type reports struct {
	generation int64
	staged     bool
	fresh      bool     // it was changed a moment ago, so that not every node may have told
	uses       []use    // one for each node where it selects something
	unheard    []string // nodes without a use that are silent since before the change
}

// count returns the status of a policy with these conditions.
func (r reports) count(conditions []metav1.Condition) policyPart {
	s := policyPart{Conditions: slices.Clone(conditions), Nodes: int32(len(r.uses))}
	slices.SortFunc(r.uses, func(a, b use) int { return cmp.Compare(a.node, b.node) })
	for _, u := range r.uses {
		s.Endpoints += u.Endpoints
		if r.missing(u) == "" {
			s.ProgrammedNodes++
		}
	}
	if r.staged {
		s.ProgrammedNodes = 0
	} else {
		s.Programmed = fmt.Sprintf("%d/%d", s.ProgrammedNodes, s.Nodes)
	}
	status, f := r.judge()
	c := f.condition(koratv1.ConditionProgrammed, status == metav1.ConditionTrue, r.generation)
	c.Status = status
	meta.SetStatusCondition(&s.Conditions, c)
	return s
}

// missing says why the policy, as it is now, is not in force on a node.
func (r reports) missing(u use) string {
	switch {
	case u.Problem != "":
		return fmt.Sprintf("node %s: %s", u.node, u.Problem)
	case u.Generation != r.generation:
		return fmt.Sprintf("node %s works with generation %d of the policy, which is at %d", u.node, u.Generation, r.generation)
	case !u.Programmed:
		return fmt.Sprintf("node %s does not have it yet", u.node)
	}
	return ""
}

// judge says whether all kernels that need the policy have it.
func (r reports) judge() (metav1.ConditionStatus, finding) {
	if r.staged {
		return metav1.ConditionFalse, finding{koratv1.ReasonStaged, "spec.enforcement: \"Staged\": no kernel is to have it"}
	}
	reason, first, lacking := koratv1.ReasonPending, "", 0
	silent := slices.Clone(r.unheard)
	for _, u := range r.uses {
		if u.silent {
			silent = append(silent, u.node)
		}
		problem := r.missing(u)
		if problem == "" {
			continue
		}
		if lacking++; first == "" || u.Problem != "" && reason == koratv1.ReasonPending {
			first = problem
		}
		if u.Problem != "" {
			reason = koratv1.ReasonKernelError
		}
	}
	switch {
	case lacking > 1:
		return metav1.ConditionFalse, finding{reason, fmt.Sprintf("%d of %d nodes do not have it, among them: %s", lacking, len(r.uses), first)}
	case lacking == 1:
		return metav1.ConditionFalse, finding{reason, first}
	case len(silent) > 0:
		return metav1.ConditionUnknown, finding{koratv1.ReasonAgentSilent, notHeard(silent)}
	case r.fresh:
		return metav1.ConditionUnknown, finding{koratv1.ReasonPending, fmt.Sprintf("changed a moment ago: all nodes have told of it within %s", settle)}
	case len(r.uses) == 0:
		return metav1.ConditionTrue, finding{reason: koratv1.ReasonNotSelecting}
	}
	return metav1.ConditionTrue, finding{reason: koratv1.ReasonProgrammed}
}

func notHeard(nodes []string) string {
	if len(nodes) == 1 {
		return fmt.Sprintf("node %s is not heard of", nodes[0])
	}
	return fmt.Sprintf("%d nodes are not heard of, among them %s", len(nodes), slices.Min(nodes))
}

// changes remembers when policies changed last. One goroutine uses it.
type changes map[client.ObjectKey]changed

type changed struct {
	uid        types.UID
	generation int64
	at         time.Time
}

func (c changes) forget(o client.ObjectKey) { delete(c, o) }

// settled returns how long it takes until a policy is no longer fresh, 0 if it is
// not.
func (c changes) settled(o client.ObjectKey, now time.Time) time.Duration {
	return max(0, settle-now.Sub(c[o].at))
}

// of returns when the policy came to its generation, as far as can be known: a
// controller that begins believes what the status says of it.
func (c changes) of(o client.Object, conditions []metav1.Condition, now time.Time) time.Time {
	known, seen := c[client.ObjectKeyFromObject(o)]
	if seen = seen && known.uid == o.GetUID(); seen && known.generation == o.GetGeneration() {
		return known.at
	}
	at := now
	told := meta.FindStatusCondition(conditions, koratv1.ConditionProgrammed)
	switch {
	case seen:
	case told != nil && told.ObservedGeneration == o.GetGeneration():
		at = told.LastTransitionTime.Time
	case o.GetGeneration() <= 1:
		at = o.GetCreationTimestamp().Time
	}
	c[client.ObjectKeyFromObject(o)] = changed{o.GetUID(), o.GetGeneration(), at}
	return at
}
