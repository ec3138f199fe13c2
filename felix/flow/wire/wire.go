// Package wire is what felix/flow says about denied packets on the agent's
// socket, and what koratctl reads: objects in JSON, one a line. Fields may be added
// later, none is renamed.
package wire

import (
	"net/netip"
	"time"
)

// Socket is the name of the socket in the agent's run directory. It is for root
// alone.
const Socket = "flow.sock"

// DropsPath is asked by GET. Its parameters are PodParam and AddrParam, which may
// both be repeated and choose the drops that concern one of these, and
// FollowParam: the answer then goes on with what comes.
const (
	DropsPath   = "/drops"
	PodParam    = "pod"
	AddrParam   = "addr"
	FollowParam = "follow"
)

// Line is one line of the answer: one field is set.
type Line struct {
	Drop *Drop `json:"drop,omitempty"`
	// Summary comes after the drops that there are, and again when it has changed.
	Summary *Summary `json:"summary,omitempty"`
}

// Drop tells of denied packets that are alike in everything but their source port.
type Drop struct {
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Count uint64    `json:"count"` // of packets that were looked at, since First
	Node  string    `json:"node"`

	Src      netip.Addr `json:"src"`
	Dst      netip.Addr `json:"dst"`
	SrcPod   string     `json:"srcPod,omitempty"` // namespace/name; the agent knows those of its node
	DstPod   string     `json:"dstPod,omitempty"`
	Protocol string     `json:"protocol"`          // TCP, ICMPv6, ... or a number
	SrcPort  uint16     `json:"srcPort,omitempty"` // of the last packet
	DstPort  uint16     `json:"dstPort,omitempty"`
	Message  *Message   `json:"message,omitempty"` // of ICMP and ICMPv6
	In       string     `json:"in,omitempty"`      // the interfaces of the packet
	Out      string     `json:"out,omitempty"`

	Reason Reason `json:"reason"`
}

// Message is the kind of an ICMP message.
type Message struct {
	Type uint8 `json:"type"`
	Code uint8 `json:"code"`
}

// Reason is why a packet was denied.
type Reason struct {
	// Cause is one of the words of desired.Cause, or "other" for one that this
	// version does not know.
	Cause     string `json:"cause"`
	Direction string `json:"direction,omitempty"` // seen from Endpoint: ingress or egress
	// Endpoint is who denied: a pod as namespace/name, or an interface of the node.
	Endpoint string   `json:"endpoint,omitempty"`
	Policy   string   `json:"policy,omitempty"`   // whose rule denied
	Rule     *int     `json:"rule,omitempty"`     // that rule, counted from 0
	Tier     string   `json:"tier,omitempty"`     // that ended without a decision
	Policies []string `json:"policies,omitempty"` // of that tier, none of which decided; the first few
}

// Summary is about all drops of the node.
type Summary struct {
	Node    string    `json:"node"`
	Since   time.Time `json:"since"`   // when recording began
	Looked  uint64    `json:"looked"`  // packets that the counts of drops are made of
	Missed  uint64    `json:"missed"`  // packets that nobody looked at, because there were too many
	Evicted uint64    `json:"evicted"` // drops that were forgotten for newer ones
	// Problem says why drops are not recorded now; empty: they are.
	Problem string `json:"problem,omitempty"`
}
