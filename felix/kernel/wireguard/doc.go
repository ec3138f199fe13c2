// Package wireguard keeps this node's ends of WireGuard tunnels as desired: the
// interfaces, their keys and ports, and for each other node what may go to it and
// come from it. felix/apply calls it. What leads packets for pods into the tunnels are
// routes that felix/kernel/route keeps. Packets of pods for the nodes themselves are
// looked up in a table that is kept here, with an address for each node
// (desired.ToNodesTable), and those of this node for others in a second one, if they are
// to be encrypted too (desired.HostTable); those around all of these are not, and go their
// own way.
//
// The kernel encrypts where it can. Where it has no WireGuard, a process of its own
// does (Serve), which has no privilege at all: the interface is a persistent tun that
// is the process's own, so that interface, addresses and routes outlive it, and what
// goes there meanwhile is dropped rather than sent in clear.
//
//	agent:  Reconciler ──netlink──▶ wg4-korat, in the kernel
//	   or:  Reconciler ──unix socket──▶ Serve ──▶ wg4-korat, a tun
//
// Ours are the interfaces of desired.TunnelKinds of WireGuard with owned.Alias; all
// peers of them are ours too, and routes of desired.RuleProtocol in the table. Private
// keys are made here and kept in a file (Ring); they leave the package for the kernel or
// the process alone.
package wireguard
