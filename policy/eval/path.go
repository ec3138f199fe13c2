package eval

import (
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// Endpoint is the policy of one end of a path that is a pod.
type Endpoint struct {
	Ingress, Egress ir.Chain
}

// Exempt says why policy is not asked at one end of a path.
type Exempt uint8

// Why a direction was not evaluated. NotAPod: that end is a node or outside the
// cluster. FromOwnHost: the source is the node on which the destination pod
// runs, which must reach it for probes. ToItself: pod and peer are the same, so
// the packet never leaves the pod.
const (
	NotExempt Exempt = iota
	NotAPod
	FromOwnHost
	ToItself
)

// Path is where a packet comes from and where it goes. Ends that are no pods are nil.
type Path struct {
	From, To *Endpoint
	// FromOwnHost says that the source is the node of To.
	FromOwnHost bool
}

// Verdict is the outcome for a whole path: the egress policy of the source and
// the ingress policy of the destination must both allow, and every host endpoint between.
type Verdict struct {
	Action policy.Action `json:"verdict"` // Allow or Deny
	// Egress and Ingress are the decisions at the two ends; where the end is
	// exempt the decision is Allow without a trace. Ingress is evaluated even
	// when egress denies, so that both reasons are known.
	Egress        Decision `json:"egress"`
	Ingress       Decision `json:"ingress"`
	EgressExempt  Exempt   `json:"egressExempt"`
	IngressExempt Exempt   `json:"ingressExempt"`
	// Hosts are the steps at host endpoints of the nodes of both ends, which all
	// must allow. Cluster tells them.
	Hosts []Step `json:"hosts,omitempty"`
	// Pending is what would be if staged policies were enforced; nil where none
	// applies to either end.
	Pending *Verdict `json:"pending,omitempty"`
}

// Path evaluates both ends of a path.
func (e *Evaluator) Path(path Path, p Packet) Verdict {
	v := path.verdict(p, e.Chain)
	if path.From != nil && path.From.Egress.Pending != nil || path.To != nil && path.To.Ingress.Pending != nil {
		pending := path.verdict(p, e.Pending)
		v.Pending = &pending
	}
	return v
}

func (path Path) verdict(p Packet, decide func(ir.Chain, Packet) Decision) Verdict {
	v := Verdict{Action: policy.Deny}
	switch {
	case path.From == nil:
		v.EgressExempt = NotAPod
	case path.From == path.To:
		v.EgressExempt = ToItself
	}
	switch {
	case path.To == nil:
		v.IngressExempt = NotAPod
	case path.From == path.To:
		v.IngressExempt = ToItself
	case path.FromOwnHost:
		v.IngressExempt = FromOwnHost
	}
	v.Egress, v.Ingress = Decision{Action: policy.Allow}, Decision{Action: policy.Allow}
	if v.EgressExempt == NotExempt {
		v.Egress = decide(path.From.Egress, p)
	}
	if v.IngressExempt == NotExempt {
		v.Ingress = decide(path.To.Ingress, p)
	}
	if v.Egress.Action == policy.Allow && v.Ingress.Action == policy.Allow {
		v.Action = policy.Allow
	}
	return v
}
