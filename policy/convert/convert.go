// Package convert turns API objects into policy.Policy. What an object says
// that cannot be understood becomes a Problem and matches nothing: a conversion
// never lets through more than the object's author wrote, and never more than
// if the object did not exist. It does not fail as a whole, because a policy
// that is half understood must still isolate.
//
// The package is pure. It is the only one of policy that knows Kubernetes' types.
package convert

import (
	"fmt"
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/koratnet/korat/policy/selector"
)

// Problem says what could not be converted.
type Problem struct {
	Field    string // path in the object, such as spec.ingress[0].from[1].ipBlock.cidr
	Value    string // as it stands there
	Expected string // what would have been understood
	Effect   string // what the conversion did about it
}

// String returns a sentence for the object's status.
func (p Problem) String() string {
	return fmt.Sprintf("%s: %q: expected %s; %s", p.Field, p.Value, p.Expected, p.Effect)
}

// problems collects what a conversion finds.
type problems []Problem

func (ps *problems) add(field, value, expected, effect string) {
	*ps = append(*ps, Problem{field, value, expected, effect})
}

// labelSelector converts a Kubernetes label selector part by part. The
// requirements that cannot be understood are left out and reported: ok is false,
// and the selector selects too much.
func (ps *problems) labelSelector(field string, s *metav1.LabelSelector, effect string) (sel *selector.Selector, ok bool) {
	before := len(*ps)
	var parts []*selector.Selector
	for k, v := range s.MatchLabels {
		parts = append(parts, selector.Equals(k, v))
	}
	for i, r := range s.MatchExpressions {
		if part := ps.requirement(fmt.Sprintf("%s.matchExpressions[%d]", field, i), r, effect); part != nil {
			parts = append(parts, part)
		}
	}
	return selector.And(parts...), len(*ps) == before
}

// requirement converts one expression, or reports it and returns nil.
func (ps *problems) requirement(field string, r metav1.LabelSelectorRequirement, effect string) *selector.Selector {
	switch r.Operator {
	case metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn:
		if len(r.Values) == 0 {
			ps.add(field+".values", "", "at least one value with the operator "+string(r.Operator), effect)
			return nil
		}
		if r.Operator == metav1.LabelSelectorOpIn {
			return selector.In(r.Key, r.Values...)
		}
		return selector.NotIn(r.Key, r.Values...)
	case metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			ps.add(field+".values", fmt.Sprint(r.Values), "no values with the operator "+string(r.Operator), effect)
			return nil
		}
		if r.Operator == metav1.LabelSelectorOpExists {
			return selector.Has(r.Key)
		}
		return selector.Not(selector.Has(r.Key))
	}
	ps.add(field+".operator", string(r.Operator), "In, NotIn, Exists or DoesNotExist", effect)
	return nil
}

// cidr reads a range of addresses; bits beyond its length are cleared, as
// Kubernetes does.
func (ps *problems) cidr(field, text, effect string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		ps.add(field, text, "an IPv4 or IPv6 range such as 10.1.0.0/16", effect)
		return netip.Prefix{}, false
	}
	return p.Masked(), true
}
