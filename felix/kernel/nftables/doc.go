// Package nftables keeps one table of nf_tables as desired, over netlink. It
// knows chains, rules, sets and verdict maps, and nothing of policy: felix/nft,
// its caller, decides what is in them.
//
// A Table is told what is wanted in memory (Want…, Unwant…), reads back what is
// there (Resync, or Recheck for what others were heard to change), and Apply
// writes the difference:
//
//	             Want…              what others do
//	               │                      │ notifications
//	               ▼                      ▼
//	kernel ──▶ wanted / there ◀── Resync, Recheck ◀── Watch
//	               │ Apply
//	               ▼
//	 one transaction: sets ▸ elements ▸ chains ▸ rules ▸ map elements ▸ removals
//
// What belongs together is one transaction, so that no packet meets half a
// change. Only what nothing in the kernel refers to yet may be written before,
// in pieces: a load from nothing is not one huge transaction.
//
// Everything in the table is ours: chains, rules, sets and maps that are not
// wanted in it are removed. (Named counters and flow tables that others put there
// are left alone: without a rule they do nothing.) No other table is read or
// written. A chain's rules carry a hash of all of them as user
// data, by which a restarted process knows that they are its own and still what
// is wanted, and finds edits of others.
//
// What the kernel refuses does not hold back the rest: it is left out, and told
// by Refused. A refused chain holds its Fallback.
//
// Two things about the kernel are worth knowing to those who decide what is in a
// table. Before it takes any rule, it looks at every expression that packets can
// reach, once for each hook they come from: so a change of one chain costs some
// tens of nanoseconds for each expression of the table, and short rules, behind
// few base chains, are changed faster. And it finds a set by its name in a list of
// all: with thousands of sets, each reference to one costs microseconds.
package nftables
