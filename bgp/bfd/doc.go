// Package bfd tells within a second that a neighbour no longer forwards:
// Bidirectional Forwarding Detection (RFC 5880) in asynchronous mode, over one
// hop (RFC 5881) and over several (RFC 5883). bgp/guarded ends BGP sessions by
// what it says; nothing else uses it.
//
//	packet.go    what is on the wire                                 (pure)
//	machine.go   one session: state, negotiation, timers, by a clock
//	             that the caller holds                                (pure)
//	system.go    the sessions of this node, whose timers are due, who hears of it
//	socket.go    sockets
//
// What holds:
//   - A packet that has come over a router is not even parsed on a single hop
//     (TTL 255 both ways); the kernel drops it.
//   - What no session is meant by costs a map lookup and is never answered. What
//     a session is meant by is answered at a bounded rate.
//   - Timers are those that both sides agreed on: a change is told in a Poll
//     Sequence and is in force after its Final.
//   - A session that ends in order tells so (AdminDown), so that the neighbour
//     does not take it for a failure. A new one says so too, once, for the case that
//     its predecessor was killed.
//   - Before a session is given up, what already waits in the socket is read: a
//     process that did not run for a while does not blame its neighbours.
//
// There is no authentication, no echo, and demand mode is never asked for; a
// neighbour that asks for it is obeyed, as it must be. The C bit is not set: the
// sessions end with the process that holds them.
package bfd
