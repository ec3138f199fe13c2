// Package drops asks agents which packets they denied, and puts the answers in
// words: of this node over its agent's socket, of others by running a command in
// their agents' pods, which needs the right to do so and no open port.
package drops

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/koratnet/korat/felix/flow/wire"
)

// Names finds the names of addresses that the agent of one node does not know;
// nil knows none.
type Names func(netip.Addr) string

// Complete gives the ends of d the names that are known.
func (n Names) Complete(d *wire.Drop) {
	if n == nil {
		return
	}
	if d.SrcPod == "" {
		d.SrcPod = n(d.Src)
	}
	if d.DstPod == "" {
		d.DstPod = n(d.Dst)
	}
}

// Text tells of a drop in one line.
func Text(d wire.Drop) string {
	times := "1 time"
	if d.Count != 1 {
		times = fmt.Sprintf("%d times since %s", d.Count, d.First.Local().Format(time.TimeOnly))
	}
	return fmt.Sprintf("%s %s: %s -> %s %s denied %s: %s",
		d.Last.Local().Format(time.DateTime), d.Node, endText(d.SrcPod, d.Src), endText(d.DstPod, d.Dst), traffic(d), times, Why(d.Reason))
}

func endText(pod string, a netip.Addr) string {
	switch {
	case !a.IsValid():
		return "unknown"
	case pod != "":
		return fmt.Sprintf("%s (%s)", pod, a)
	}
	return a.String()
}

// traffic returns "TCP 5432" or "ICMP type 8".
func traffic(d wire.Drop) string {
	switch {
	case d.Message != nil:
		return fmt.Sprintf("%s type %d", d.Protocol, d.Message.Type)
	case d.DstPort != 0:
		return fmt.Sprintf("%s %d", d.Protocol, d.DstPort)
	}
	return d.Protocol
}

// Why says in words what denied.
func Why(r wire.Reason) string {
	switch r.Cause {
	case "rule":
		return fmt.Sprintf("rule %d of %s (%s of %s)", *r.Rule, r.Policy, r.Direction, r.Endpoint)
	case "tier":
		if len(r.Policies) == 0 {
			return fmt.Sprintf("end of tier %s (%s of %s)", r.Tier, r.Direction, r.Endpoint)
		}
		return fmt.Sprintf("no rule of %s matches (%s of %s, end of tier %s)", strings.Join(r.Policies, ", "), r.Direction, r.Endpoint, r.Tier)
	case "default":
		return fmt.Sprintf("no policy allows it, and the default is to deny (%s of %s)", r.Direction, r.Endpoint)
	case "unknown":
		return fmt.Sprintf("the agent knows of no pod behind interface %s", r.Endpoint)
	case "forged":
		return fmt.Sprintf("the source is no address of %s", r.Endpoint)
	case "tunnel":
		return fmt.Sprintf("%s may not build tunnels", r.Endpoint)
	case "invalid":
		return fmt.Sprintf("it belongs to no connection (%s of %s)", r.Direction, r.Endpoint)
	case "tohost":
		return fmt.Sprintf("%s may not reach its node (podToHost of the NodeConfiguration)", r.Endpoint)
	case "loop":
		return "nobody serves this address of a service"
	case "clear":
		return "packets of its pool travel between nodes encrypted, or not at all"
	case "router":
		return fmt.Sprintf("%s is no router", r.Endpoint)
	}
	return fmt.Sprintf("%s (cause %s)", r.Endpoint, r.Cause)
}

// Hint is the command that tells more about a drop, "" if policy did not decide.
func Hint(d wire.Drop) string {
	if d.Reason.Cause != "rule" && d.Reason.Cause != "tier" && d.Reason.Cause != "default" {
		return ""
	}
	end := func(pod string, a netip.Addr) string {
		switch {
		case pod != "":
			return pod
		case a.Is6():
			return "[" + a.String() + "]"
		}
		return a.String()
	}
	src := strings.Trim(end(d.SrcPod, d.Src), "[]") // no port follows
	port := d.DstPort
	if d.Message != nil {
		port = uint16(d.Message.Type)
	}
	return fmt.Sprintf("koratctl policy explain %s %s:%d/%s --why", src, end(d.DstPod, d.Dst), port, d.Protocol)
}

// Trouble says what is wrong with the records of a node; "" for nothing.
func Trouble(s wire.Summary) string {
	switch {
	case s.Problem != "":
		return fmt.Sprintf("node %s does not record drops: %s", s.Node, s.Problem)
	case s.Missed > 0:
		return fmt.Sprintf("node %s has not looked at %d denied packets: there were too many", s.Node, s.Missed)
	}
	return ""
}
