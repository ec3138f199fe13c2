package policy

import (
	"net/netip"
	"strconv"
)

// Rule matches packets that satisfy all of its criteria. A criterion that is a
// list is satisfied by any of its elements; nil is no criterion, and an empty
// list that is not nil is satisfied by nothing.
//
// One end of the packet is the selected endpoint, the other its peer: Peers and
// Own mean the same in both directions, sources and destinations do not.
type Rule struct {
	Action    Action
	Name      string // the rule's name in its object, for traces
	IPVersion uint8  // 4, 6, or 0 for both
	// Peers are the other ends.
	Peers []Peer
	// Own are further criteria on the selected endpoint's own end.
	Own []Peer
	// Ports are the protocols of the packet and its destination ports; SrcPorts
	// its protocols and source ports.
	Ports, SrcPorts []Port
	// NotPorts and NotSrcPorts must not match: not any of them.
	NotPorts, NotSrcPorts []Port
}

// Peer is one end of a connection. It must satisfy all criteria that are set; a
// Peer without any matches nothing: that is what an unusable peer in an object
// is converted to.
type Peer struct {
	Scope    *Scope         // one of these things
	NotScope *Scope         // none of these things: addresses that nobody knows match
	Nets     []netip.Prefix // in one of them; masked. Matches pods' addresses too
	Except   []netip.Prefix // in none of them; masked
	// Service: one of its endpoints, ready or not; as a destination with the
	// protocol and port that the endpoint serves.
	Service ServiceName
	// Names is where names of ports are looked up if there is no Scope; nil is
	// nowhere. It is no criterion.
	Names *Scope
}

// Empty reports whether p has no criterion, and so matches nothing.
func (p Peer) Empty() bool {
	return p.Scope == nil && p.NotScope == nil && len(p.Nets) == 0 && len(p.Except) == 0 && p.Service == ServiceName{}
}

// Port matches packets of a protocol by their port or message. One with neither
// a range, a Name nor a Message matches all packets of the protocol.
type Port struct {
	Protocol    Protocol
	First, Last uint16 // inclusive; both zero are no criterion
	// Name matches the number that the end of the connection gives this name: one
	// of the things that the Scope of its Peer selects, or its Names. Where nothing
	// is said about that end it is one of those that the policy selects, if it is
	// the own end, or else any pod.
	Name string
	// Message matches messages of ICMP and ICMPv6.
	Message Message
}

// MessagePart says how much of a Message is compared.
type MessagePart uint8

// The parts.
const (
	AnyMessage MessagePart = iota
	MessageType
	MessageTypeAndCode
)

// Message matches messages of ICMP or ICMPv6.
type Message struct {
	Compare    MessagePart
	Type, Code uint8
}

// Matches reports whether m matches a message of that type and code.
func (m Message) Matches(typ, code uint8) bool {
	return m.Compare == AnyMessage || m.Type == typ && (m.Compare == MessageType || m.Code == code)
}

// String returns "any", "type 8" or "type 3 code 4".
func (m Message) String() string {
	switch m.Compare {
	case MessageType:
		return "type " + strconv.Itoa(int(m.Type))
	case MessageTypeAndCode:
		return "type " + strconv.Itoa(int(m.Type)) + " code " + strconv.Itoa(int(m.Code))
	}
	return "any"
}

// Protocol is an IP protocol number; zero means any protocol.
type Protocol uint8

// The protocols that have names in policies.
const (
	AnyProtocol Protocol = 0
	ICMP        Protocol = 1
	TCP         Protocol = 6
	UDP         Protocol = 17
	ICMPv6      Protocol = 58
	SCTP        Protocol = 132
	UDPLite     Protocol = 136
)

var protocolNames = map[Protocol]string{
	AnyProtocol: "any", ICMP: "ICMP", TCP: "TCP", UDP: "UDP", ICMPv6: "ICMPv6", SCTP: "SCTP", UDPLite: "UDPLite",
}

// HasPorts reports whether packets of the protocol carry port numbers that
// policies may ask for.
func (p Protocol) HasPorts() bool { return p == TCP || p == UDP || p == SCTP }

// HasMessages reports whether packets of the protocol carry a type and a code.
func (p Protocol) HasMessages() bool { return p == ICMP || p == ICMPv6 }

// String returns the protocol's name, or its number where it has none here.
func (p Protocol) String() string {
	if name, ok := protocolNames[p]; ok {
		return name
	}
	return "protocol " + strconv.Itoa(int(p))
}

// MarshalText returns String.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }
