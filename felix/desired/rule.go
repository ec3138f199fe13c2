package desired

import "net/netip"

// Rule is a rule of policy routing (ip-rule(8)): Table is asked before the main one for
// the way of packets that it matches. A table that knows no way is as if it was not
// asked.
type Rule struct {
	Priority uint32       // the lowest is asked first; above 0, the table of the node's own addresses
	From     netip.Prefix // of sources; never the zero Prefix, which has no family
	Table    uint32
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
