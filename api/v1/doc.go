// Package v1 holds the API types of group korat.dev/v1: what an operator
// writes to configure Korat, and what Korat writes back about how it is doing.
//
// All kinds but NetworkPolicy and NetworkSet are cluster-scoped, and all but the
// network sets have the status subresource: people write spec, Korat writes
// status. The comments here become the descriptions that
// `kubectl explain` prints, so they speak to the operator: what a field means,
// in which unit, and what holds when it is left out.
//
// The package is data. It never talks to an API server and decides nothing:
// beside the types it holds the defaults, the names of conditions and reasons,
// the tiers that are always there, and the one bijection everybody needs, between a block's CIDR and its name.
//
// Who writes what:
//
//	kind                 spec                     status
//	IPPool               operator                 korat controller
//	Block                the owning node's agent  the owning node's agent
//	NodeNetwork          operator (AS number)     the node's agent
//	BGPConfiguration     operator                 korat controller
//	BGPPeer              operator                 korat controller
//	Tier                 operator                 korat controller
//	NetworkPolicy        people of its namespace  korat controller
//	GlobalNetworkPolicy  operator                 korat controller
//	NetworkSet           people of its namespace  none
//	GlobalNetworkSet     operator                 none
//	HostEndpoint         operator                 the node's agent
//
// Validation lives in the schema. A value the API server accepted is well
// formed: CIDRs parse and are canonical, durations are whole seconds in range.
// What needs other objects (overlapping pools) or another language (selectors,
// the order of "8000:8999") is reported by a condition instead.
//
// The deepcopy functions and charts/korat/crds are generated from these files by
// hack/generate.sh.
//
// +kubebuilder:object:generate=true
// +groupName=korat.dev
package v1
