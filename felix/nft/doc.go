// Package nft enforces policy with nf_tables. It prints the same policy/ir as
// every other backend; what the rules do to a packet is judged by policy/eval.
//
// There is one table, inet korat, and everything in it is ours. felix/kernel/
// nftables keeps it over netlink; this package decides what is in it:
//
//	raw-prerouting ──── from a pod: (interface, source) must be in a map
//	      │             others: host endpoints, untracked
//	mangle-prerouting ─ host endpoints, before DNAT
//	forward ─────────── open connections are accepted by one rule
//	      │             host endpoint of the way in, from-pod, to-pod, of the way out
//	input ───────────── from a pod: neighbours, from-pod; others: host endpoints
//	mangle-postrouting  packets of the node: host endpoints
//	nat-postrouting ─── masquerading
//	nat-prerouting, nat-output, nat-floating: floating addresses
//
//	from-pod ── map by interface ── from/IFACE/… ── chain of a policy …
//	to-pod ──── map by interface ── to/IFACE/… ──── chain of a policy …
//
// from-pod and to-pod end in a drop: an interface with our prefix that is not
// known is closed, with or without agent. Packets that neither come from nor go
// to a pod meet one test per hook and are left alone, and so are packets from the
// node to its own pods. Base chains that nobody needs are not there.
//
// A chain of a policy is shared by all endpoints that it selects. Denying is a
// drop. Allowing an ingress packet is an accept: nothing stands behind to-pod.
// Allowing an egress packet sets a mark and returns, as the ingress policy of
// another pod may follow; Pass, which leaves a tier, sets another one. (Chains
// that went on to what follows by themselves would need no mark. But the kernel
// walks all ways through a table whenever it changes, and there would be as many
// as there are pairs of pods and rules.) A third mark tells that a host endpoint
// has decided at an earlier hook.
//
// The rules of policies that one endpoint alone asks stand in its own chain, cut
// into pages that go on in each other: fewer chains are a shorter way for the
// kernel, and a change is one of a page.
//
// The file words.go has the words of which rules are made, match.go the meaning of the
// criteria of a rule, policy.go, walk.go and pages.go that of policies and tiers, endpoint.go,
// static.go and hosts.go the rest. All that is pure. firewall.go keeps book of what
// is wanted, write.go brings it into the table, chains.go knows who needs which
// chain, sets.go the members, closed.go whom a refusal concerns.
//
// Review notes. Refuse a rule before the one for open connections in forward, a
// jump from a chain of a policy to anything that has jumps of its own, and a
// message to the kernel whose size depends on anything but the change.
package nft
