package route

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Present returns the prefixes of our routes in the network namespace of the
// calling thread, sorted.
func Present() ([]netip.Prefix, error) {
	r, err := New()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if err := r.links.read(); err != nil {
		return nil, fmt.Errorf("read interfaces: %w", err)
	}
	all, err := r.dump()
	if err != nil {
		return nil, err
	}
	var prefixes []netip.Prefix
	for k := range maps.Keys(all) {
		prefixes = append(prefixes, k.prefix)
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	return prefixes, nil
}
