package desired

// PolicyUse is a policy that selects something on this node: what the node has
// to tell about it. Nothing in the kernel follows from it.
type PolicyUse struct {
	Generation int64 // of the policy's object; 0 where the object has none
	Pods       int   // local pods that it selects
	Hosts      int   // host endpoints of this node that it selects
	Staged     bool  // it decides nothing, so that no kernel needs it
}
