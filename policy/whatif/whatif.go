// Package whatif tells whose traffic a change of policy concerns: it asks
// policy/eval about all traffic between all ends, in the cluster before and in the
// cluster after. Ends that no policy tells apart are asked once, and ports as
// ranges between the numbers that some rule names, so that nothing is left out
// but one thing: connections come from source port 50000.
//
// The package is pure.
package whatif

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
)

// Change is traffic of which the verdict is another one after than before. Its
// JSON is an interface: fields may be added, none renamed.
type Change struct {
	Sources      []string      `json:"sources"`
	Destinations []string      `json:"destinations"`
	Family       int           `json:"family,omitempty"` // 4 or 6; 0: both, or the only one that they have
	Traffic      []string      `json:"traffic"`          // "TCP 80,443", "UDP", "all traffic"
	Before       policy.Action `json:"before"`
	After        policy.Action `json:"after"`
	DecidedBy    string        `json:"decidedBy"` // after

	from, to class
}

// String returns the change as a line.
func (c Change) String() string {
	family := ""
	if c.Family != 0 {
		family = fmt.Sprintf(" over IPv%d", c.Family)
	}
	then := c.DecidedBy // begins with the verdict, unless it tells of both ends
	if !strings.HasPrefix(then, c.After.String()) {
		then = fmt.Sprintf("%s (%s)", c.After, c.DecidedBy)
	}
	return fmt.Sprintf("%s -> %s, %s%s: %s now, then %s", c.from, c.to, strings.Join(c.Traffic, ", "), family, c.Before, then)
}

// Compare returns all changes, in order of names.
func Compare(before, after *eval.Cluster) []Change {
	all := classes(before, after)
	c := comparison{before: before.Asker(), after: after.Asker(), probes: probes(before, after)}
	changes := []Change{}
	for _, from := range all {
		for _, to := range all {
			if from[0].kind != aPod && to[0].kind != aPod {
				continue
			}
			changes = append(changes, c.pair(from, to)...)
		}
	}
	return changes
}

type comparison struct {
	before, after *eval.Asker
	probes        []probe
}

// pair compares the traffic between two classes, of either family. What is the
// same for both is told once.
func (c *comparison) pair(from, to class) []Change {
	src, dst, ok := representatives(from, to)
	if !ok {
		return nil
	}
	var families [2][]Change
	asked := 0
	for i, v6 := range []bool{false, true} {
		was, before := packet(src, dst, 0, v6)
		is, after := packet(src, dst, 1, v6)
		if before && after {
			asked++
			families[i] = c.family(was, is, v6)
		}
	}
	for i := range families {
		for j := range families[i] {
			ch := &families[i][j]
			ch.from, ch.to, ch.Sources, ch.Destinations = from, to, from.names(), to.names()
			if asked == 2 {
				ch.Family = 4 + 2*i
			}
		}
	}
	same := func(a, b Change) bool {
		return a.Before == b.Before && a.After == b.After && a.DecidedBy == b.DecidedBy && plain(a) == plain(b)
	}
	if asked == 2 && slices.EqualFunc(families[0], families[1], same) {
		for i := range families[0] {
			families[0][i].Family = 0
		}
		return families[0]
	}
	return slices.Concat(families[0], families[1])
}

// plain returns the traffic without what the families call differently.
func plain(c Change) string {
	return strings.ReplaceAll(strings.Join(c.Traffic, ","), policy.ICMPv6.String(), policy.ICMP.String())
}

func (c class) names() []string {
	out := make([]string, len(c))
	for i, e := range c {
		out[i] = e.name
	}
	return out
}

// representatives picks an end of each class. What a node sends to its own pods,
// and a pod to itself, is never refused, so these are no examples.
func representatives(from, to class) (src, dst end, ok bool) {
	for _, src := range from {
		for _, dst := range to {
			if src.name != dst.name && (src.kind != aNode || src.node != dst.node) {
				return src, dst, true
			}
		}
	}
	return end{}, end{}, false
}

// packet returns a packet of a family between two ends in one of the clusters.
func packet(src, dst end, which int, v6 bool) (eval.Packet, bool) {
	for _, s := range src.addrs[which] {
		for _, d := range dst.addrs[which] {
			if s.Is6() == v6 && d.Is6() == v6 {
				return eval.Packet{Src: s, Dst: d}, true
			}
		}
	}
	return eval.Packet{}, false
}

// family compares all traffic between two ends, which may have other addresses
// after than before.
func (c *comparison) family(before, after eval.Packet, v6 bool) []Change {
	var all []probe
	var changes []Change
	changed := map[int][]probe{} // by index of the change
	for _, p := range c.probes {
		if !p.fits(v6) {
			continue
		}
		all = append(all, p)
		was, is := c.before.Verdict(p.between(before)), c.after.Verdict(p.between(after))
		if was.Action == is.Action {
			continue
		}
		by := is.DecidedBy()
		i := slices.IndexFunc(changes, func(ch Change) bool { return ch.After == is.Action && ch.DecidedBy == by })
		if i < 0 {
			i = len(changes)
			changes = append(changes, Change{Before: was.Action, After: is.Action, DecidedBy: by})
		}
		changed[i] = append(changed[i], p)
	}
	for i := range changes {
		changes[i].Traffic = describe(changed[i], all)
	}
	slices.SortStableFunc(changes, func(a, b Change) int { return cmp.Compare(b.After, a.After) })
	return changes
}
