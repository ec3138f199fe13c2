package explain

import (
	"fmt"
	"strings"

	"github.com/koratnet/korat/cmd/koratctl/internal/world"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
	"github.com/koratnet/korat/policy/eval"
)

// Answer is the verdict about a Question. Its JSON is an interface: fields may
// be added, none renamed.
type Answer struct {
	Verdict     policy.Action   `json:"verdict"`
	DecidedBy   string          `json:"decidedBy"`
	Source      End             `json:"source"`
	Destination End             `json:"destination"`
	Protocol    policy.Protocol `json:"protocol"`
	Port        uint16          `json:"port,omitempty"`
	MessageType uint8           `json:"messageType,omitempty"`
	Trace       eval.Verdict    `json:"trace"`
	Problems    []world.Problem `json:"problems"` // those that may make the answer another one
}

// Ask answers q.
func Ask(w *world.World, q Question) Answer {
	c := w.Cluster
	c.Explain = true
	v := c.Verdict(q.Packet)
	nameSets(&v, c.Policies)
	return Answer{
		Verdict: v.Action, DecidedBy: v.DecidedBy(), Source: q.Source, Destination: q.Destination,
		Protocol: q.Packet.Protocol, Port: q.Packet.DstPort, MessageType: q.Packet.Type,
		Trace: v, Problems: world.Serious(w.Problems),
	}
}

// nameSets puts what a set holds in the place of its name, in the texts of rules.
func nameSets(v *eval.Verdict, policies []*policy.Policy) {
	var names []string
	for _, p := range policies {
		for _, d := range policy.Directions {
			for _, set := range compile.Sets(p, d) {
				names = append(names, "set "+string(compile.SetIDOf(set)), "("+set.String()+")")
			}
		}
	}
	r := strings.NewReplacer(names...)
	for ; v != nil; v = v.Pending {
		decisions := []eval.Decision{v.Egress, v.Ingress}
		for _, s := range v.Hosts {
			decisions = append(decisions, s.Decision)
		}
		for _, d := range decisions {
			for _, t := range d.Trace {
				for _, p := range t.Programs {
					for i := range p.Rules {
						p.Rules[i].Text = r.Replace(p.Rules[i].Text)
					}
				}
			}
		}
	}
}

// Depth is how much of the way to a decision is told.
type Depth int

// Policies tells of tiers and policies, Rules also of each rule that was asked.
const (
	Policies Depth = iota
	Rules
)

// Text returns the answer for people.
func (a Answer) Text(depth Depth) string {
	var b strings.Builder
	what := a.Protocol.String()
	switch {
	case a.Protocol.HasPorts():
		what = fmt.Sprintf("%d/%s", a.Port, a.Protocol)
	case a.Protocol.HasMessages():
		what = fmt.Sprintf("%s type %d", a.Protocol, a.MessageType)
	}
	fmt.Fprintf(&b, "%s -> %s, %s\n", a.Source, a.Destination, what)
	writeVerdict(&b, a.Trace, depth)
	if p := a.Trace.Pending; p != nil {
		fmt.Fprintf(&b, "\nIf staged policies were enforced:\n")
		writeVerdict(&b, *p, depth)
	}
	return b.String()
}

func writeVerdict(b *strings.Builder, v eval.Verdict, depth Depth) {
	fmt.Fprintf(b, "%s\n", v.Action)
	writeSide(b, "egress of the source", v.Egress, v.EgressExempt, depth)
	writeSide(b, "ingress of the destination", v.Ingress, v.IngressExempt, depth)
	for _, s := range v.Hosts {
		writeSide(b, fmt.Sprintf("host endpoint %s, %s, %s", s.Interface, s.At, s.Direction), s.Decision, eval.NotExempt, depth)
	}
}

func writeSide(b *strings.Builder, side string, d eval.Decision, exempt eval.Exempt, depth Depth) {
	if exempt != eval.NotExempt {
		fmt.Fprintf(b, "  %s: not asked, %s\n", side, exempt)
		return
	}
	fmt.Fprintf(b, "  %s: %s\n", side, d)
	for _, t := range d.Trace {
		fmt.Fprintf(b, "    tier %s: %s\n", t.Name, t.Action)
		for _, p := range t.Programs {
			fmt.Fprintf(b, "      %s: %s\n", p.ID.Policy, outcome(p))
			if depth == Rules {
				writeRules(b, p)
			}
		}
	}
}

func outcome(p eval.ProgramTrace) string {
	switch {
	case p.Missing:
		return "not known, so Deny"
	case p.Rule < 0:
		return "no rule matches"
	}
	return fmt.Sprintf("%s by rule %d", p.Action, p.Origin)
}

func writeRules(b *strings.Builder, p eval.ProgramTrace) {
	for _, r := range p.Rules {
		why := "matches"
		if r.Mismatch != nil {
			why = r.Mismatch.String()
		}
		fmt.Fprintf(b, "        rule %d, %s: %s\n", r.Origin, r.Text, why)
	}
}
