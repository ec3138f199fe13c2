package v1

// ConditionPathMTU says that packets as large as those that pods send, with all that
// encapsulation adds, reach the other nodes. On a NodeNetwork.
const ConditionPathMTU = "PathMTU"

// The reasons of ConditionPathMTU.
const (
	// ReasonFullSize, with PathMTU true: so do packets of the size that the node's
	// own interface takes.
	ReasonFullSize = "FullSize"
	// ReasonPodsFit, with PathMTU true: larger ones do not reach some nodes, which
	// the message names.
	ReasonPodsFit = "PodsFit"
	// ReasonBlackHole, with PathMTU false: they vanish, and nobody says so. The
	// message says on the way to whom, which size passes and what to do.
	ReasonBlackHole = "BlackHole"
	// ReasonNarrow, with PathMTU false: a router refuses them and says so. What is
	// sent is made smaller then, at a cost.
	ReasonNarrow = "Narrow"
	// ReasonNotTried, with PathMTU unknown: there is no other node, or none has
	// answered yet.
	ReasonNotTried = "NotTried"
)
