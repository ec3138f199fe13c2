// Package conntrack keeps the kernel's table of connections true to what is
// desired. felix/apply calls it, through two reconcilers.
//
// Flusher deletes the entries of addresses that leave the node or come to it, so
// that the new owner of an address does not inherit the connections of the old
// one: what is established passes without being asked. It stands after the rules
// and before the routes, that is when the old endpoint is closed already and the
// new one not reached yet.
//
// It flushes both when an address is left and when it is taken, although it led
// nowhere in between. That stops only packets to it. Whoever on the link sends with
// it as source is not stopped: its route is asked about by rp_filter alone, which
// IPv6 does not have. So an address that nobody has can be in a connection with a
// pod, answered and all; and rules or tables of the node's own may have led packets
// to it elsewhere.
//
// Rechecker, which is off unless Settings.Recheck, asks policy/eval about the
// connections of pods whose policy changed, and deletes the entries of those that
// are denied now. It stands last, when all rules are in force.
//
// No entry is ours: whoever opens a connection makes it. So nothing is swept but
// what concerns pods, no entry is ever made or changed, and one whose connection
// policy allows is left alone.
package conntrack
