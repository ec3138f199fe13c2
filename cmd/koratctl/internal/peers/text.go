// Package peers says in words what agents know of BGP.
package peers

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/koratnet/korat/felix/peering"
)

// Sessions is a table of sessions, those that are down first on each node.
func Sessions(lines []peering.Line, now time.Time) string {
	slices.SortStableFunc(lines, func(a, b peering.Line) int {
		return cmp.Or(strings.Compare(a.Node, b.Node), cmp.Compare(rank(a.Session), rank(b.Session)), strings.Compare(a.Session.Peer, b.Session.Peer))
	})
	return table("NODE\tPEER\tADDRESS\tAS\tSTATE\tFOR\tRECEIVED\tACCEPTED\tADVERTISED\tBFD\tPROBLEM", lines, func(l peering.Line) string {
		s := l.Session
		since := "-"
		if s.Since != nil {
			since = now.Sub(*s.Since).Truncate(time.Second).String()
		}
		problem := s.Error
		if s.State == established {
			problem = "" // of the time before
		}
		return fmt.Sprintf("%s\t%s\t%s\t%d\t%s\t%s\t%d\t%d\t%d\t%s\t%s", l.Node, s.Peer, or(s.Address), s.AS, s.State, since, s.Received, s.Accepted, s.Advertised, or(s.BFD), problem)
	})
}

const established = "Established"

func rank(s *peering.Session) int {
	if s.State == established {
		return 1
	}
	return 0
}

// Routes is a table of routes by node and prefix.
func Routes(lines []peering.Line) string {
	return table("NODE\tPREFIX\tWAY\tPEER\tNEXT HOP\tAS PATH\tPREF\tMED\tCOMMUNITIES\tUSE", lines, func(l peering.Line) string {
		r := l.Route
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", l.Node, r.Prefix, way(r), or(r.Peer), or(r.NextHop),
			or(asPath(r.ASPath)), number(r.LocalPreference), number(r.MED), or(strings.Join(r.Communities, " ")), use(r))
	})
}

func table(head string, lines []peering.Line, row func(peering.Line) string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, head)
	for _, l := range lines {
		fmt.Fprintln(w, row(l))
	}
	w.Flush()
	var trimmed strings.Builder
	for line := range strings.Lines(b.String()) {
		trimmed.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return trimmed.String()
}

func way(r *peering.Route) string {
	switch {
	case r.Peer == "":
		return "own"
	case r.Told:
		return "to"
	}
	return "from"
}

func use(r *peering.Route) string {
	var words []string
	switch {
	case r.Rejected != "":
		words = append(words, "rejected: "+r.Rejected)
	case r.Told:
		words = append(words, "told")
	case r.Best:
		words = append(words, "best")
	default:
		words = append(words, "not best")
	}
	if r.Stale {
		words = append(words, "stale")
	}
	return strings.Join(words, ", ")
}

func asPath(path []uint32) string {
	words := make([]string, len(path))
	for i, as := range path {
		words[i] = fmt.Sprint(as)
	}
	return strings.Join(words, " ")
}

func number(n *uint32) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

func or(text string) string { return cmp.Or(text, "-") }

// Explain says node by node what becomes of packets for a prefix, and why: what the
// kernel does, who says what of it, and who is told.
func Explain(prefix string, lines []peering.Line) string {
	var b strings.Builder
	byNode := map[string][]peering.Line{}
	var nodes []string
	for _, l := range lines {
		if byNode[l.Node] == nil {
			nodes = append(nodes, l.Node)
		}
		byNode[l.Node] = append(byNode[l.Node], l)
	}
	slices.Sort(nodes)
	for _, node := range nodes {
		fmt.Fprintf(&b, "node %s: %s\n", node, prefix)
		learnt, installed := false, false
		for _, l := range byNode[node] {
			switch {
			case l.Entry != nil:
				installed = true
				fmt.Fprintf(&b, "  kernel: %s %s\n", l.Entry.Prefix, kernel(l.Entry))
			case l.Route != nil:
				learnt = learnt || !l.Route.Told && l.Route.Peer != "" && l.Route.Best
				fmt.Fprintf(&b, "  %s\n", sentence(l.Route))
			}
		}
		switch {
		case installed:
		case learnt:
			b.WriteString("  kernel: no route of Korat's: the prefix is in no IPPool, no range of services and none of learnedRanges, or it is of a block of this node\n")
		default:
			b.WriteString("  kernel: no route of Korat's: no peer says anything that can be used\n")
		}
	}
	if len(nodes) == 0 {
		fmt.Fprintf(&b, "no node has a route to %s, and no peer says one\n", prefix)
	}
	return b.String()
}

func kernel(e *peering.Entry) string {
	switch e.Kind {
	case "local":
		return "to a pod of this node, interface " + e.Interface
	case "unreachable":
		return "is a block of this node: addresses without a pod are unreachable"
	case "tunnel":
		return "through the tunnel " + e.Interface + " to " + strings.Join(e.NextHops, ", ")
	}
	return "via " + strings.Join(e.NextHops, ", ")
}

func sentence(r *peering.Route) string {
	var words []string
	switch {
	case r.Peer == "":
		return r.Prefix + " is announced by this node"
	case r.Told && r.Rejected != "":
		return fmt.Sprintf("%s is kept from %s: %s", r.Prefix, r.Peer, r.Rejected)
	case r.Told:
		words = append(words, fmt.Sprintf("%s is told to %s", r.Prefix, r.Peer))
	default:
		words = append(words, fmt.Sprintf("%s says %s", r.Peer, r.Prefix))
	}
	if r.NextHop != "" {
		words = append(words, "next hop "+r.NextHop)
	}
	if len(r.ASPath) > 0 {
		words = append(words, "AS path "+asPath(r.ASPath))
	}
	if r.LocalPreference != nil {
		words = append(words, "preference "+number(r.LocalPreference))
	}
	if r.MED != nil {
		words = append(words, "MED "+number(r.MED))
	}
	if len(r.Communities) > 0 {
		words = append(words, "communities "+strings.Join(r.Communities, " "))
	}
	if !r.Told {
		words = append(words, use(r))
	}
	return strings.Join(words, ", ")
}
