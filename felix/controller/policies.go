package controller

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/convert"
)

// accepted returns the conditions with one that says whether the spec is in use:
// it is unless f says something. Conditions keep the time of their last change.
func accepted(was []metav1.Condition, f finding, generation int64) []metav1.Condition {
	conditions := slices.Clone(was)
	ok := f.reason == ""
	if ok {
		f.reason = koratv1.ReasonAccepted
	}
	meta.SetStatusCondition(&conditions, f.condition(koratv1.ConditionAccepted, ok, generation))
	return conditions
}

// policyProblem says why not all of a policy is in use, the zero finding if all
// is. What is wrong with the policy itself goes before what it refers to.
func policyProblem(problems []convert.Problem, tier string, exists bool) finding {
	switch {
	case len(problems) > 0:
		return firstOf(problems)
	case !exists:
		return finding{koratv1.ReasonUnknownTier, fmt.Sprintf(
			"spec.tier: %q: expected the name of a Tier, and there is none of this name; the policy is asked last, as if its tier ended with Deny", tier)}
	}
	return finding{}
}

// firstOf tells of the first problem, and how many more there are.
func firstOf(problems []convert.Problem) finding {
	f := finding{koratv1.ReasonInvalid, problems[0].String()}
	if strings.HasSuffix(strings.ToLower(problems[0].Field), "selector") {
		f.reason = koratv1.ReasonInvalidSelector
	}
	if more := len(problems) - 1; more > 0 {
		f.message += fmt.Sprintf(" (and %d more)", more)
	}
	return f
}

// tierOf returns the name of the tier in which a policy is asked.
func tierOf(s *koratv1.PolicySpec) string {
	if s.Tier == "" {
		return policy.DefaultTier
	}
	return s.Tier
}

// tierStatus says what t's status is when so many policies name it.
func tierStatus(t *koratv1.Tier, policies int) koratv1.TierStatus {
	f := finding{}
	if _, problems := convert.Tier(t); len(problems) > 0 {
		f = firstOf(problems)
	}
	return koratv1.TierStatus{Conditions: accepted(t.Status.Conditions, f, t.Generation), Policies: int32(policies)}
}

// hostProblem says why h is not in use. Which interfaces a node has only its
// agent knows.
func hostProblem(h *koratv1.HostEndpoint, nodeExists bool) finding {
	_, problems := convert.HostEndpoint(h)
	switch {
	case len(problems) > 0:
		return firstOf(problems)
	case strings.HasPrefix(h.Spec.InterfaceName, desired.InterfacePrefix):
		return finding{koratv1.ReasonInvalid, fmt.Sprintf(
			"spec.interfaceName: %q: expected an interface of the host: those that begin with %s are of pods", h.Spec.InterfaceName, desired.InterfacePrefix)}
	case !nodeExists:
		return finding{koratv1.ReasonUnknownNode, fmt.Sprintf("spec.node: %q: expected the name of a Node, and there is none of this name", h.Spec.Node)}
	}
	return finding{}
}
