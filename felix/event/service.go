package event

import (
	"net/netip"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

// Service is under which addresses a service is reached, and what its policies
// say of who may serve them. Services without addresses are no Service.
type Service struct {
	policy.ServiceName
	Labels          selector.Labels
	ClusterIPs      []netip.Addr
	ExternalIPs     []netip.Addr
	LoadBalancerIPs []netip.Addr // of its status, those that packets keep on their way to the node
	// InternalLocal and ExternalLocal: a node passes connections only to backends
	// of its own, InternalLocal those to ClusterIPs, ExternalLocal all others.
	InternalLocal, ExternalLocal bool
}

// Backend is how the endpoints of an EndpointSlice on one node do.
type Backend struct {
	Node   string // empty: on no node that is known
	Ready  bool   // one at least takes new connections and will go on
	Ending bool   // one at least still takes new connections, and terminates
}

// ServiceRange is a range of addresses of services that nodes may announce.
type ServiceRange struct {
	CIDR netip.Prefix // masked
	// Aggregate: every node announces CIDR, and single addresses only where not
	// every node serves them. Otherwise single addresses alone.
	Aggregate bool
}

// ServiceRanges are all that may be announced of services, by what the addresses
// are to them. An address in none of its kind is announced by nobody.
type ServiceRanges struct {
	ClusterIPs, ExternalIPs, LoadBalancerIPs []ServiceRange
}

func (*Service) kind() Kind { return ServiceKind }
