package dataplanetest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
)

// reasons counts what decided about packets.
type reasons map[reason]int

type reason struct {
	at     eval.Point
	cause  eval.Cause
	action policy.Action
}

func (r reasons) note(c eval.Crossing) {
	for _, s := range c.Steps {
		r[reason{s.At, s.Decision.Cause, s.Decision.Action}]++
	}
}

// wanted are the reasons without which Differential says little, wantedOfPrograms
// those of Programs.
var wanted = []reason{
	{eval.AtUntracked, eval.ByRule, policy.Allow},
	{eval.AtUntracked, eval.ByRule, policy.Deny},
	{eval.AtUntracked, eval.ByFailsafe, policy.Allow},
	{eval.AtUntracked, eval.ByNeighbour, policy.Allow},
	{eval.AtPreDNAT, eval.ByRule, policy.Allow},
	{eval.AtPreDNAT, eval.ByRule, policy.Deny},
	{eval.AtPreDNAT, eval.ByFailsafe, policy.Allow},
	{eval.AtPreDNAT, eval.ByNeighbour, policy.Allow},
	{eval.AtHost, eval.ByRule, policy.Allow},
	{eval.AtHost, eval.ByRule, policy.Deny},
	{eval.AtHost, eval.ByTierEnd, policy.Deny},
	{eval.AtHost, eval.ByDefault, policy.Deny},
	{eval.AtHost, eval.ByFailsafe, policy.Allow},
	{eval.AtHost, eval.ByNeighbour, policy.Allow},
	{eval.AtHost, eval.ByState, policy.Allow},
	{eval.AtForward, eval.ByRule, policy.Allow},
	{eval.AtForward, eval.ByRule, policy.Deny},
	{eval.AtForward, eval.ByTierEnd, policy.Deny},
	{eval.AtPod, eval.ByRule, policy.Allow},
	{eval.AtPod, eval.ByRule, policy.Deny},
	{eval.AtPod, eval.ByTierEnd, policy.Deny},
	{eval.AtPod, eval.ByDefault, policy.Allow},
	{eval.AtPod, eval.ByState, policy.Allow},
	{eval.AtPod, eval.ByItself, policy.Allow},
	{eval.AtNode, eval.ByNeighbour, policy.Allow},
	{eval.AtNode, eval.ByPodToHost, policy.Deny},
	{eval.AtServices, eval.ByLoop, policy.Deny},
}

var wantedOfPrograms = []reason{
	{eval.AtUntracked, eval.ByRule, policy.Deny},
	{eval.AtPreDNAT, eval.ByRule, policy.Deny},
	{eval.AtHost, eval.ByRule, policy.Allow},
	{eval.AtHost, eval.ByRule, policy.Deny},
	{eval.AtForward, eval.ByRule, policy.Deny},
	{eval.AtPod, eval.ByRule, policy.Allow},
	{eval.AtPod, eval.ByRule, policy.Deny},
	{eval.AtPod, eval.ByTierEnd, policy.Deny},
	{eval.AtPod, eval.ByDefault, policy.Allow},
	{eval.AtPod, eval.ByDefault, policy.Deny},
	{eval.AtPod, eval.ByMissing, policy.Deny},
	{eval.AtPod, eval.ByState, policy.Allow},
}

// missing returns which of those that are wanted have decided nothing.
func (r reasons) missing(wanted []reason) []reason {
	var out []reason
	for _, w := range wanted {
		if r[w] == 0 {
			out = append(out, w)
		}
	}
	return out
}

func (r reason) String() string { return fmt.Sprintf("%s: %s, %s", r.at, r.action, r.cause) }

func (r reasons) String() string {
	var lines []string
	for why, n := range r {
		lines = append(lines, fmt.Sprintf("%s: %d\n", why, n))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}
