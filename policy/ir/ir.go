// Package ir is compiled policy: what every backend programs and policy/eval
// gives a meaning to. Rules are closed structs, not interfaces, so that a
// backend that forgets a field is seen in review and by the differential tests.
//
// A packet to or from an endpoint walks the Chain of that direction: tier by
// tier, and in a tier program by program, rule by rule. The first rule that
// matches decides: Allow ends the walk open, Deny ends it closed, Pass leaves
// the tier; Log is noted and decides nothing. A tier that ends without a
// decision does what its End says. After the last tier the chain's Default
// decides.
package ir

import (
	"net/netip"

	"github.com/koratnet/korat/policy"
)

// SetID names an address set. It is derived from the set's definition (the
// canonical text of a policy.Set), so equal definitions share one set on every
// node. At most 20 characters of [a-z0-9], to fit the kernel's 31 with a prefix.
type SetID string

// SetKind is what the members of a set are.
type SetKind uint8

// The kinds of set.
const (
	Addrs     SetKind = iota // single addresses: prefixes of full length
	Nets                     // prefixes of any length, which may overlap
	AddrPorts                // single addresses with protocol and port
)

// Member is one element of a set, of either address family.
type Member struct {
	Prefix   netip.Prefix    // masked
	Protocol policy.Protocol // AddrPorts only
	Port     uint16          // AddrPorts only
}

// ProgramID names the rules of one policy in one direction.
type ProgramID struct {
	Policy    policy.Key       `json:"policy"`
	Direction policy.Direction `json:"direction"`
}

// Program is one policy's compiled rules for one direction. Endpoints share it.
type Program struct {
	ID    ProgramID
	Rules []Rule
}

// Family restricts a rule to an address family.
type Family uint8

// AnyFamily matches both; IPv4 and IPv6 match one.
const (
	AnyFamily Family = 0
	IPv4      Family = 4
	IPv6      Family = 6
)

// Is reports whether address a is of family f.
func (f Family) Is(a netip.Addr) bool {
	switch f {
	case IPv4:
		return a.Is4()
	case IPv6:
		return a.Is6() && !a.Is4In6()
	}
	return true
}

// PortRange is an inclusive range of port numbers.
type PortRange struct {
	First, Last uint16
}

// Rule matches packets that satisfy every criterion that is set, and then does
// Action. A zero Rule matches everything and denies.
type Rule struct {
	Action   policy.Action
	Family   Family
	Protocol policy.Protocol // AnyProtocol matches all
	// NotProtocols: the protocol is none of these. Only with AnyProtocol.
	NotProtocols []policy.Protocol
	// Nets are criteria on addresses: the packet's source (destination) must lie
	// in one of them when the list is not empty, and in none of Not…. Masked. A
	// rule whose Nets are all of one family never matches packets of the other.
	SrcNets, DstNets       []netip.Prefix
	NotSrcNets, NotDstNets []netip.Prefix
	// Sets of kind Addrs or Nets: the address must be in every set listed, and in
	// none of Not….
	SrcSets, DstSets       []SetID
	NotSrcSets, NotDstSets []SetID
	// PortSets are sets of kind AddrPorts: the address, the protocol and the port
	// of that end must together be a member of every set listed, and of none of Not….
	SrcPortSets, DstPortSets       []SetID
	NotSrcPortSets, NotDstPortSets []SetID
	// Ports: the port must lie in one of the ranges when the list is not empty.
	// Only with a Protocol that HasPorts. There is no list of ports that must not
	// match: the ranges leave them out.
	SrcPorts, DstPorts []PortRange
	// Message must match, and none of NotMessages. Only with a Protocol that
	// HasMessages.
	Message     policy.Message
	NotMessages []policy.Message
	// Origin is the index of the policy's rule that this one was compiled from,
	// for traces. It is no criterion.
	Origin int
}

// Tier is an ordered group of programs.
type Tier struct {
	Name     string
	Programs []ProgramID
	// End decides for packets that no rule of the tier matched: Deny or Pass.
	End policy.Action
}

// Chain is everything that decides about one direction of an endpoint.
type Chain struct {
	Tiers []Tier // only tiers with at least one enforced program that applies
	// Default decides after the last tier: Allow for endpoints that no policy
	// isolates in this direction, Deny where the agent cannot know yet.
	Default policy.Action
	// Pending are the tiers as they would be if staged policies were enforced; nil
	// where none applies. They decide nothing: backends leave them out.
	Pending []Tier
}
