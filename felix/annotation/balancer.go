package annotation

import (
	"errors"
	"net/netip"
)

// The annotations of services of type LoadBalancer. Lists are separated by commas.
const (
	// LoadBalancerIPs are the very addresses of a service, at most one of each family.
	LoadBalancerIPs = Prefix + "load-balancer-ips"
	// LoadBalancerPools name the IPPools that addresses come from, in the order in
	// which they are to be used.
	LoadBalancerPools = Prefix + "load-balancer-pools"
)

// BalancerWishes is what a service asks for. Zero values ask for nothing.
type BalancerWishes struct {
	Addrs []netip.Addr // at most one of a family
	Pools []string
}

// ParseBalancer reads the annotations of a service. The error joins one for each
// annotation that cannot be read, and names it and what was expected.
func ParseBalancer(service map[string]string) (BalancerWishes, error) {
	r := reader{object: "the service", pod: service}
	w := BalancerWishes{
		Addrs: read(&r, LoadBalancerIPs, podOnly, onePerFamily),
		Pools: read(&r, LoadBalancerPools, podOnly, poolNames),
	}
	return w, errors.Join(r.errs...)
}
