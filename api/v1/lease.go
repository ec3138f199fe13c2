package v1

// An agent shows that it lives by renewing a Lease of its own: a write to its
// NodeNetwork would go to every agent of the cluster.
const (
	// LeaseNamespace is where the Leases of agents are, beside those of kubelets.
	LeaseNamespace = "kube-node-lease"
	// LeaseOfAgent and "." begin the name of a Lease; that of the node follows.
	LeaseOfAgent = "korat-agent"
	// LeaseLabel is on every Lease of an agent, with the value LeaseOfAgent.
	LeaseLabel = "app.kubernetes.io/name"
)
