package v1

// The types of conditions. A condition that is absent is not known yet.
const (
	// ConditionReady says that the object does its work. On an IPPool: nodes
	// can claim blocks. On a NodeNetwork: routes and policy of the node's pods
	// are in its kernel.
	ConditionReady = "Ready"

	// ConditionAccepted says that the spec is in use. It is false for what the
	// schema cannot catch: a selector that does not parse, objects that
	// contradict each other. On Block, BGPConfiguration, BGPPeer,
	// NodeConfiguration and Tier. On a policy it says that every part of the
	// spec is in use: what is not understood is left out where that closes,
	// and denies where leaving it out would open. On a HostEndpoint: the
	// endpoint is in use.
	ConditionAccepted = "Accepted"

	// ConditionEnforced says that the backend that the NodeConfigurations ask
	// for enforces the node's policy, and no other does. On a NodeNetwork.
	ConditionEnforced = "Enforced"

	// ConditionEstablished says that every wanted BGP session is up. On a
	// BGPPeer and on a NodeNetwork.
	ConditionEstablished = "Established"

	// ConditionSufficient says that a pool will last: at the pace of the last
	// hours its last block is not claimed within a day. On an IPPool.
	ConditionSufficient = "Sufficient"

	// ConditionEncapsulated says that every node sends packets to the pods of an
	// IPPool in what its spec says.
	ConditionEncapsulated = "Encapsulated"

	// ConditionEncrypted says that every other node is reached encrypted. On a
	// NodeNetwork, where encryption is asked for.
	ConditionEncrypted = "Encrypted"

	// ConditionProgrammed says that the kernels have it. On a policy: on every
	// node with an endpoint that it selects. On a HostEndpoint: on its node.
	ConditionProgrammed = "Programmed"
	// ConditionAddressAssigned, on a Service of type LoadBalancer, says that it
	// has addresses from IPPools.
	ConditionAddressAssigned = "korat.dev/AddressAssigned"
)

// The reasons of conditions, in the order of the condition they belong to.
// The message beside the reason names the field, the value and what was
// expected.
const (
	// ReasonAccepted, with Accepted true: the spec is in use.
	ReasonAccepted = "Accepted"
	// ReasonInvalidSelector, with Ready or Accepted false: a selector does not
	// parse. On a policy the message begins with its field path.
	ReasonInvalidSelector = "InvalidSelector"
	// ReasonConflict, with Accepted false: another object already says
	// something that contradicts this one, such as a second session with the
	// same address.
	ReasonConflict = "Conflict"
	// ReasonUnknownFilter, with Accepted false on a BGPPeer: a BGPFilter that it
	// names does not exist or is not Accepted, so that there is no session.
	ReasonUnknownFilter = "UnknownFilter"
	// ReasonUnknownPool, with Accepted false on a BGPAdvertisement: an IPPool that
	// it names does not exist. All else of it is announced.
	ReasonUnknownPool = "UnknownPool"
	// ReasonNameMismatch, with Accepted false on a Block: the name is not the
	// one that belongs to its CIDR, so that it does not count as a claim.
	ReasonNameMismatch = "NameMismatch"
	// ReasonOutsidePool, with Accepted false on a Block: its pool does not
	// exist or does not contain it.
	ReasonOutsidePool = "OutsidePool"
	// ReasonInvalid, with Accepted false on a policy, a Tier or a HostEndpoint:
	// a part of the spec means nothing, and the message begins with its field
	// path. There may be more: the message is about the first.
	ReasonInvalid = "Invalid"
	// ReasonUnknownTier, with Accepted false on a policy: its tier does not
	// exist, and is taken for the last, with default action Deny.
	ReasonUnknownTier = "UnknownTier"
	// ReasonUnknownNode, with Accepted false on a HostEndpoint: its node does
	// not exist.
	ReasonUnknownNode = "UnknownNode"
	// ReasonNoInterface, with Accepted false on a HostEndpoint: its node has no
	// such interface, or none with one of the addresses.
	ReasonNoInterface = "NoInterface"

	// ReasonServing, with Ready true on an IPPool: nodes can claim blocks.
	ReasonServing = "Serving"
	// ReasonDisabled, with Ready false on an IPPool: the spec says so.
	ReasonDisabled = "Disabled"
	// ReasonExhausted, with Ready false on an IPPool: every block is owned.
	ReasonExhausted = "Exhausted"
	// ReasonOverlap, with Ready false on an IPPool: its range overlaps that of
	// an older pool, which goes first.
	ReasonOverlap = "Overlap"

	// ReasonDeleting, with Ready false on an IPPool: it is being deleted, and
	// the message says which blocks hold it.
	ReasonDeleting = "Deleting"
	// ReasonSufficient, with Sufficient true: the pool will last.
	ReasonSufficient = "Sufficient"
	// ReasonRunningOut, with Sufficient false: the message says when the last
	// block is claimed, at the pace of the last hours.
	ReasonRunningOut = "RunningOut"
	// ReasonNearlyFull, with Sufficient false: less than a tenth of the blocks is
	// left.
	ReasonNearlyFull = "NearlyFull"
	// ReasonInUse, with Encapsulated true: every node sends so.
	ReasonInUse = "InUse"
	// ReasonPreparing, with Encapsulated false: not every node can receive what
	// the spec says yet, and the message names some.
	ReasonPreparing = "Preparing"
	// ReasonAllEncrypted, with Encrypted true: every other node is reached so.
	ReasonAllEncrypted = "AllEncrypted"
	// ReasonPeersWithoutKey, with Encrypted false: some nodes encrypt nothing, and
	// the message names some and says what that means for them.
	ReasonPeersWithoutKey = "PeersWithoutKey"
	// ReasonCannotEncrypt, with Encrypted false: an interface of this node does not
	// work, and the message says why.
	ReasonCannotEncrypt = "CannotEncrypt"
	// ReasonNoPool, with Accepted false on an IPReservation: its ranges touch no
	// IPPool. With AddressAssigned false: there is none that the service may use.
	ReasonNoPool = "NoPool"
	// ReasonAssigned, with AddressAssigned true: the service has an address of each
	// of its families. The reasons why not are NoPool, Exhausted, Invalid,
	// AddressTaken (by another service) and Unavailable (the requested address).
	ReasonAssigned = "Assigned"

	// ReasonProgrammed, with Ready true on a NodeNetwork: the kernel is as
	// desired. With Programmed true: every kernel that needs it has it.
	ReasonProgrammed = "Programmed"
	// ReasonStarting, with Ready false on a NodeNetwork: the agent has not yet
	// read all it needs to know.
	ReasonStarting = "Starting"
	// ReasonAgentSilent, with Ready unknown on a NodeNetwork: its agent has not
	// renewed its Lease for some minutes. What it programmed stays in the kernel.
	// With Programmed unknown on a policy: such a node may need it.
	ReasonAgentSilent = "AgentSilent"
	// ReasonKernelError, with Ready or Enforced false on a NodeNetwork or
	// Programmed false: a kernel refuses something, and the message says what.
	ReasonKernelError = "KernelError"
	// ReasonPending, with Programmed false: some node that needs it does not
	// have it yet, and the message says how many and names one. With Programmed
	// unknown on a policy: it is so new that not every node may have told of it.
	ReasonPending = "Pending"
	// ReasonNotSelecting, with Programmed true on a policy: it selects no
	// endpoint, so that no node needs it.
	ReasonNotSelecting = "NotSelecting"
	// ReasonStaged, with Programmed false on a policy: it is staged, no kernel
	// is to have it.
	ReasonStaged = "Staged"

	// ReasonInForce, with Enforced true on a NodeNetwork: the message says which
	// backend it is and why.
	ReasonInForce = "InForce"
	// ReasonSwitching, with Enforced false on a NodeNetwork: one backend enforces
	// policy until the wanted one does, and the message says what is missing. With
	// Encapsulated false: not every node sends as the spec says yet.
	ReasonSwitching = "Switching"
	// ReasonLeftovers, with Enforced false on a NodeNetwork: the wanted backend
	// enforces policy, and the other cannot be removed.
	ReasonLeftovers = "Leftovers"

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
