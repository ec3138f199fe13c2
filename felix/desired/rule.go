package desired

import (
	"net/netip"
	"strconv"

	"github.com/koratnet/korat/policy"
)

// Rule is a rule of policy routing (ip-rule(8)): Table is asked before the main one for
// the way of packets that it matches. A table that knows no way is as if it was not
// asked.
type Rule struct {
	Priority uint32       // the lowest is asked first; above 0, the table of the node's own addresses
	From     netip.Prefix // of sources; never the zero Prefix, which has no family
	// Local: only what programs of the node send.
	Local bool
	Mark  uint32 // only packets, and questions about ways, with exactly this mark; 0: all
	// Protocol, and with it SourcePort or DestinationPort: only such packets; 0: all.
	Protocol                    policy.Protocol
	SourcePort, DestinationPort uint16
	Table                       uint32 // 0: none is asked
	// Goto is the priority of the rule, behind this one, that is looked at next; 0: the
	// next one is.
	Goto uint32
}

// String returns r in the words of `ip rule`, without its priority.
func (r Rule) String() string {
	text := "from " + r.From.String()
	if r.Local {
		text += " iif lo"
	}
	if r.Mark != 0 {
		text += " fwmark 0x" + strconv.FormatUint(uint64(r.Mark), 16)
	}
	if r.Protocol != 0 {
		text += " ipproto " + strconv.Itoa(int(r.Protocol))
	}
	if r.SourcePort != 0 {
		text += " sport " + strconv.Itoa(int(r.SourcePort))
	}
	if r.DestinationPort != 0 {
		text += " dport " + strconv.Itoa(int(r.DestinationPort))
	}
	switch {
	case r.Table != 0:
		return text + " lookup " + strconv.Itoa(int(r.Table))
	case r.Goto != 0:
		return text + " goto " + strconv.Itoa(int(r.Goto))
	}
	return text + " nop"
}

// RuleProtocol marks these rules, and the routes in the tables that they lead to, as
// RouteProtocol does all other routes: two reconcilers tell apart what is theirs.
const RuleProtocol = 113

// ToNodesTable has the addresses of the nodes that are reached through WireGuard, of
// both families. Rules of priority ToNodesRule lead there what has the address of a
// pod of a pool that is encrypted.
const (
	ToNodesTable = 11210
	ToNodesRule  = 11210
)

// HostTable has the addresses of the nodes to which this one sends through WireGuard
// also what is its own. HostRule leads there what has the node's address as source, and
// UnboundRule what has none yet. ApartRule has what carries all this, and what tells
// whether the wire works, go on at PastHostRule, as BoundRule has what has another source.
const (
	HostTable    = 11211
	ApartRule    = 11211
	HostRule     = 11212
	BoundRule    = 11213
	UnboundRule  = 11214
	PastHostRule = 11215
)

// ApartMark is the mark of what asks for, or tries, the way to a node outside of all
// tunnels. The agent alone has it.
const ApartMark = 0x6b000000
