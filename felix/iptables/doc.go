// Package iptables keeps the rules of one address family as desired, through
// iptables and ipset. It prints the same policy/ir as every other backend; what
// the rules do to a packet is judged by policy/eval, above all by its Host.
//
//	raw PREROUTING ──── KORAT-PREROUTING ─── from a pod: the source must be routed back
//	                                         to where it came from; no RA. Untracked policy
//	raw OUTPUT * ────── KORAT-OUTPUT ─────── untracked policy
//	mangle PREROUTING * KORAT-PREROUTING ─── policy before translation
//	filter INPUT ────── KORAT-INPUT ──────── from a pod: ND; its egress; Settings.PodToHost
//	                                         else host endpoints: khi-IFACE
//	filter FORWARD ──── KORAT-FORWARD ────── of a known connection: accepted
//	     │                                   host endpoints, from a pod, to a pod, host endpoints
//	     └─ (tail) ───────────────────────── what all let through is accepted
//	filter OUTPUT * ─── KORAT-OUTPUT ─────── to a pod: left alone; else kho-IFACE
//	mangle POSTROUTING *KORAT-POSTROUTING ── the same for what was translated
//	nat PREROUTING *, OUTPUT * ─ KORAT-FLOATING ── floating addresses become those of pods
//	nat POSTROUTING * ─ KORAT-POSTROUTING ── (tail) pods hide behind the node
//
//	KORAT-NEAR-FROM ─ the pod's address ┬─ kfw-IFACE ── kpo-POLICY … ── kd-REASON
//	   └──── KORAT-FROM-POD ─ all names ┘
//	KORAT-NEAR-TO, KORAT-TO-POD ───────── ktw-IFACE ── kpi-POLICY … ── kd-REASON
//
// What has a * is there while somebody wants it. The chain of a pod drops or
// returns, so that a packet between two pods of the node passes the egress policy of
// one and the ingress policy of the other; a policy's returns with a mark. The
// tries over names end in a drop at every level: an interface with our prefix that
// is not known is closed, with or without agent. Packets that have nothing to do
// with pods and host endpoints are left alone, and so are those from the node to
// its own pods. A drop is told in a chain of its own, at no cost for what passes.
// What most packets meet, the check of the source and the pass for connections that
// are known, stands in the built-in chains themselves, before the jumps.
//
// Rendering is pure: a style (style.go, and raw.go, mangle.go, filter.go, nat.go
// for each table, pods.go, host.go and failsafe.go for who is in them, dispatch.go
// and near.go for the tries, match.go, combine.go and target.go for rules) has all
// that it depends on. Programming (table.go, push.go) owns the chains with our
// prefixes and its rules in built-in chains, and nothing else. Every rule carries a
// hash of itself and of the rules before it in a seal, so that the kernel tells
// without memory what is right already (rule.go, save.go).
//
// What an earlier life of the agent left stays until all is known: its rules, its
// host endpoints and its marks. Then what is not wanted goes, also from the other
// flavour of iptables.
//
// felix/backend makes one Firewall per family, or an Unfiltered where the host has
// no means to filter IPv6; felix/apply runs them.
package iptables
