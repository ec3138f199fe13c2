package nftables

import "github.com/google/nftables/expr"

// Rule is one rule of a chain.
type Rule struct {
	// Exprs are what the rule consists of. Sets and maps are referred to by name:
	// expr.Lookup.SetID stays zero, and anonymous sets do not exist here.
	Exprs []expr.Any
	// Comment is for people who list the table: at most 100 bytes of text, of which
	// more is cut off. It counts as part of the rule.
	Comment string

	written []byte // of a rule that is Prepared, in the place of Exprs
}

// Chain is a chain with all of its rules.
type Chain struct {
	Name string
	// Base says where packets enter the chain. nil: they are sent there by rules
	// or verdict maps.
	Base  *Hook
	Rules []Rule
	// Fallback is what the chain holds while the kernel refuses Rules. nil is a
	// single rule that drops: in a base chain, whatever packets of the node come
	// there, so that one had better name another.
	Fallback []Rule
}

// Hook is where packets enter a base chain.
type Hook struct {
	Type     ChainType
	Number   HookNumber
	Priority int32
	// Drop: packets that reach the end of the chain are dropped, not accepted.
	Drop bool
}

// ChainType is the kind of a base chain.
type ChainType string

// The kinds of base chains.
const (
	Filter ChainType = "filter"
	NAT    ChainType = "nat"
	Route  ChainType = "route"
)

// HookNumber is one of the five places where packets pass (enum nf_inet_hooks).
type HookNumber uint32

// The hooks of the families inet, ip and ip6.
const (
	Prerouting HookNumber = iota
	Input
	Forward
	Output
	Postrouting
)

// Family is what packets the chains of a table see.
type Family uint8

// The families of tables (NFPROTO_…).
const (
	Inet Family = 1 // IPv4 and IPv6
	IPv4 Family = 2
	ARP  Family = 3
	IPv6 Family = 10
)

// Set is a set of keys. What is in it is told by WantMembers and its relatives,
// not here.
type Set struct {
	Name string
	// Key says what a key is made of; more than one field is a concatenation.
	Key []Field
	// Interval: the members are prefixes (Net, Ports) of the one field, which may
	// overlap. The kernel, which allows no overlap, gets those that no other holds.
	Interval bool
}

// Map is a verdict map: rules look up a key in it and do what it finds.
// What is in it is told by WantVerdict and its relatives.
type Map struct {
	Name string
	Key  []Field
}

// Verdict is what a map says about a key: Accept, Drop, Return, or what Jump and
// Goto return.
type Verdict string

// The verdicts that name no chain.
const (
	Accept Verdict = "accept"
	Drop   Verdict = "drop"
	Return Verdict = "return"
)

// Jump is the verdict to go on in a chain and to come back from its end.
func Jump(chain string) Verdict { return Verdict("jump " + chain) }

// Goto is the verdict to go on in a chain and not to come back.
func Goto(chain string) Verdict { return Verdict("goto " + chain) }

// Kind is what an Object is.
type Kind uint8

// The kinds of objects in a table.
const (
	AChain Kind = iota + 1
	ASet
	AMap
)

// Object names something in the table.
type Object struct {
	Kind Kind
	Name string
	// Key is the member of the set or the element of the map that is meant; empty
	// is the chain, the set or the map itself.
	Key Key
}
