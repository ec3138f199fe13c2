// Package iptables keeps the packet filter of one address family as desired,
// through iptables and ipset. It prints the same policy/ir as every other
// backend; what the rules do to a packet is judged by policy/eval.
//
//	raw PREROUTING ── KORAT-PREROUTING ── from a pod: the source must be routed back
//	                                      to where the packet came from; no RA
//	filter INPUT ──── KORAT-INPUT ─────── from a pod: ND; then its egress; then accept
//	filter FORWARD ── KORAT-FORWARD ───── from a pod: KORAT-FROM-POD
//	     │                                to a pod:   KORAT-TO-POD
//	     └─ (tail) ── KORAT-FORWARDED ─── what both let through is accepted
//
//	KORAT-FROM-POD ── a trie over interface names ── kfw-IFACE ── kpo-POLICY …
//	KORAT-TO-POD ──── the same ───────────────────── ktw-IFACE ── kpi-POLICY …
//
// A chain of an endpoint or a policy returns with the accept mark or drops, so
// that a packet between two pods of the node passes the egress policy of one and
// the ingress policy of the other. The tries end in a drop at every level: an
// interface with our prefix that is not known is closed, with or without agent.
// Packets that neither come from nor go to a pod meet one test per hook and are
// left alone, and so are packets from the node to its own pods.
//
// Rendering (chains.go, match.go, combine.go, target.go, dispatch.go) is pure.
// Programming (table.go, push.go) owns the chains with our prefixes and the jumps
// to them, and nothing else.
// Every rule carries a hash of itself and of the rules before it in a comment:
// what iptables-save prints tells, without memory, what is right already.
//
// felix/agent makes one Firewall per family, or an Unfiltered where the host has
// no means to filter IPv6; felix/apply runs them.
package iptables
