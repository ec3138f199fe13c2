package eval

import (
	"fmt"
	"strings"

	"github.com/koratnet/korat/policy"
)

// String returns the state's name.
func (s State) String() string {
	return [...]string{"new", "established", "related", "invalid"}[s&3]
}

// String returns the packet as 10.0.0.1 -> 10.0.0.2 80/TCP.
func (p Packet) String() string {
	what := p.Protocol.String()
	if p.Protocol.HasPorts() {
		what = fmt.Sprintf("%d/%s", p.DstPort, p.Protocol)
	}
	if p.State != New {
		what += " (" + p.State.String() + ")"
	}
	return fmt.Sprintf("%s -> %s %s", p.Src, p.Dst, what)
}

// String says what decided, in words.
func (d Decision) String() string {
	switch d.Cause {
	case ByRule:
		return fmt.Sprintf("%s by %s, %s rule %d", d.Action, d.Program.Policy, d.Program.Direction, d.Origin)
	case ByMissing:
		return fmt.Sprintf("%s, because %s is not known", d.Action, d.Program.Policy)
	case ByTierEnd:
		return fmt.Sprintf("%s, because no rule of %s matches", d.Action, d.asked())
	case ByState:
		return fmt.Sprintf("%s, because the connection is %s", d.Action, d.State)
	}
	if d.Action == policy.Allow {
		return "Allow, because no policy decides"
	}
	return "Deny by default"
}

// asked lists the policies of the tier that decided.
func (d Decision) asked() string {
	var names []string
	for _, p := range d.Trace[len(d.Trace)-1].Programs {
		names = append(names, p.ID.Policy.String())
	}
	return strings.Join(names, ", ")
}

// String returns the reason, or "" for NotExempt.
func (e Exempt) String() string {
	switch e {
	case NotAPod:
		return "not a pod"
	case FromOwnHost:
		return "from the pod's own node"
	case ToItself:
		return "from the pod to itself"
	}
	return ""
}

// String says what is decided and what decided it at both ends.
func (v Verdict) String() string {
	side := func(d Decision, e Exempt) string {
		if e != NotExempt {
			return e.String()
		}
		return d.String()
	}
	return fmt.Sprintf("%s (egress: %s; ingress: %s)", v.Action, side(v.Egress, v.EgressExempt), side(v.Ingress, v.IngressExempt))
}
