package eval

import (
	"fmt"
	"slices"
	"strings"

	"github.com/koratnet/korat/policy"
)

// String returns the state's name.
func (s State) String() string {
	return [...]string{"new", "established", "related", "invalid"}[s&3]
}

// MarshalText returns String.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

var causeNames = [...]string{
	ByDefault: "default", ByRule: "rule", ByMissing: "missing policy", ByTierEnd: "end of tier", ByState: "state",
	ByUnknown: "unknown interface", ByForgery: "forged source", ByRouter: "router message", ByTunnel: "tunnel",
	ByPodToHost: "pod to host", ByLoop: "service loop", ByFailsafe: "failsafe", ByNeighbour: "neighbour discovery",
	ByItself: "to itself",
}

// String returns a few constant words, such as "rule" or "end of tier".
func (c Cause) String() string { return causeNames[c] }

// MarshalText returns String.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// String returns the packet as 10.0.0.1 -> 10.0.0.2 80/TCP.
func (p Packet) String() string {
	what := p.Protocol.String()
	if p.Protocol.HasPorts() {
		what = fmt.Sprintf("%d/%s", p.DstPort, p.Protocol)
	}
	if p.Protocol.HasMessages() && p.Type|p.Code != 0 {
		what += " " + message(p)
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
	case ByDefault:
	default:
		return fmt.Sprintf("%s, because of %s", d.Action, causeSentences[d.Cause])
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

// MarshalText returns String.
func (e Exempt) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// DecidedBy says in words what decided: what denies, or else what allows at
// both ends.
func (v Verdict) DecidedBy() string {
	switch {
	case v.Egress.Action != policy.Allow:
		return v.Egress.String()
	case v.Ingress.Action != policy.Allow:
		return v.Ingress.String()
	case v.Action != policy.Allow:
		return v.Hosts[slices.IndexFunc(v.Hosts, Step.denies)].String()
	}
	_, ends, _ := strings.Cut(v.String(), " ")
	return strings.Trim(ends, "()")
}

// String says what is decided and what decided it at both ends.
func (v Verdict) String() string {
	side := func(d Decision, e Exempt) string {
		if e != NotExempt {
			return e.String()
		}
		return d.String()
	}
	hosts := ""
	for _, s := range v.Hosts {
		hosts += "; " + s.String()
	}
	return fmt.Sprintf("%s (egress: %s; ingress: %s%s)", v.Action, side(v.Egress, v.EgressExempt), side(v.Ingress, v.IngressExempt), hosts)
}

// causeSentences end "Deny, because of".
var causeSentences = map[Cause]string{
	ByUnknown: "an interface that is not known", ByForgery: "a source that is not the pod's", ByRouter: "a pod that speaks as a router",
	ByTunnel: "a tunnel that a pod built", ByPodToHost: "what the node lets in from its pods", ByLoop: "a service address that nobody serves",
	ByFailsafe: "a port that keeps the node alive", ByNeighbour: "neighbour discovery", ByItself: "a pod that reaches itself",
}

var pointNames = [...]string{
	AtSource: "source", AtUntracked: "untracked", AtPreDNAT: "preDNAT", AtHost: "host", AtForward: "forward",
	AtPod: "pod", AtNode: "node", AtServices: "services",
}

// String returns the point's name.
func (p Point) String() string { return pointNames[p] }

// MarshalText returns String.
func (p Point) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// String returns the step as "forward egress at eth0: Deny by default".
func (s Step) String() string {
	return fmt.Sprintf("%s %s at %s: %s", s.At, s.Direction, s.Interface, s.Decision)
}

// String lists the steps, one a line, after the outcome.
func (c Crossing) String() string {
	lines := []string{c.Action.String()}
	for _, s := range c.Steps {
		lines = append(lines, "\t"+s.String())
	}
	return strings.Join(lines, "\n")
}
