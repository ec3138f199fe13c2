package v1

// The types of conditions. A condition that is absent is not known yet.
const (
	// ConditionReady says that the object does its work. On an IPPool: nodes
	// can claim blocks. On a NodeNetwork: routes and policy of the node's pods
	// are in its kernel.
	ConditionReady = "Ready"

	// ConditionAccepted says that the spec is in use. It is false for what the
	// schema cannot catch: a selector that does not parse, objects that
	// contradict each other. On Block, BGPConfiguration and BGPPeer.
	ConditionAccepted = "Accepted"

	// ConditionEstablished says that every wanted BGP session is up. On a
	// BGPPeer and on a NodeNetwork.
	ConditionEstablished = "Established"
)

// The reasons of conditions, in the order of the condition they belong to.
// The message beside the reason names the field, the value and what was
// expected.
const (
	// ReasonAccepted, with Accepted true: the spec is in use.
	ReasonAccepted = "Accepted"
	// ReasonInvalidSelector, with Ready or Accepted false: a node selector
	// does not parse.
	ReasonInvalidSelector = "InvalidSelector"
	// ReasonConflict, with Accepted false: another object already says
	// something that contradicts this one, such as a second session with the
	// same address.
	ReasonConflict = "Conflict"
	// ReasonNameMismatch, with Accepted false on a Block: the name is not the
	// one that belongs to its CIDR, so that it does not count as a claim.
	ReasonNameMismatch = "NameMismatch"
	// ReasonOutsidePool, with Accepted false on a Block: its pool does not
	// exist or does not contain it.
	ReasonOutsidePool = "OutsidePool"

	// ReasonServing, with Ready true on an IPPool: nodes can claim blocks.
	ReasonServing = "Serving"
	// ReasonDisabled, with Ready false on an IPPool: the spec says so.
	ReasonDisabled = "Disabled"
	// ReasonExhausted, with Ready false on an IPPool: every block is owned.
	ReasonExhausted = "Exhausted"
	// ReasonOverlap, with Ready false on an IPPool: its range overlaps that of
	// an older pool, which goes first.
	ReasonOverlap = "Overlap"

	// ReasonProgrammed, with Ready true on a NodeNetwork: the kernel is as
	// desired.
	ReasonProgrammed = "Programmed"
	// ReasonStarting, with Ready false on a NodeNetwork: the agent has not yet
	// read all it needs to know.
	ReasonStarting = "Starting"
	// ReasonKernelError, with Ready false on a NodeNetwork: the kernel refuses
	// something, and the message says what.
	ReasonKernelError = "KernelError"

	// ReasonAllEstablished, with Established true: every wanted session is up.
	ReasonAllEstablished = "AllEstablished"
	// ReasonSessionsDown, with Established false: a wanted session is not up,
	// and the message says which and why.
	ReasonSessionsDown = "SessionsDown"
	// ReasonNoSessions, with Established true on a NodeNetwork and false on a
	// BGPPeer: no session is wanted, because nothing asks for one or the
	// selector chooses no node.
	ReasonNoSessions = "NoSessions"
)
