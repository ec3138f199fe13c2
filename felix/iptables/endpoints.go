package iptables

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy/ir"
)

// wantEndpoint renders an endpoint. One without an address of this family needs
// no chains: to the tries it is unknown, and so closed.
func (f *Firewall) wantEndpoint(iface string, e *desired.Endpoint) {
	old := f.endpoints[iface]
	delete(f.endpoints, iface)
	delete(f.unnamable, iface)
	if e != nil && !ifaceName.MatchString(iface) {
		f.unnamable[iface] = fmt.Errorf("interface name %q: want %s and up to 12 of a-z and 0-9", iface, desired.InterfacePrefix)
		e = nil
	}
	var own, before []netip.Addr
	if e != nil {
		own = familyAddrs(e, f.cfg.Family)
	}
	if old != nil {
		before = familyAddrs(old, f.cfg.Family)
	}
	if e != nil {
		f.endpoints[iface] = e
	}
	policies := map[ir.ProgramID]struct{}{}
	switch {
	case len(own) > 0:
		addPrograms(policies, e.Ingress, e.Egress)
		f.filter.set(f.style.fromPod(e))
		f.filter.set(f.style.toPod(e))
	case len(before) > 0:
		f.filter.unset(fromPrefix + iface)
		f.filter.unset(toPrefix + iface)
	}
	f.libraries[f.filter].lend(iface, policies, f.render)
	f.moved = f.moved || !slices.Equal(own, before)
}

var errPending = errors.New("rules are not in the kernel yet")

// Closed returns the endpoints whose rules, or whose policies' rules, are not in
// the kernel as they should be.
func (f *Firewall) Closed() map[string]error {
	closed := maps.Clone(f.unnamable)
	blame := func(iface string, err error) {
		if _, wanted := f.endpoints[iface]; wanted && closed[iface] == nil {
			closed[iface] = err
		}
	}
	blameAll := func(err error) {
		for iface := range f.endpoints {
			blame(iface, err)
		}
	}
	if !f.read || !f.raw.hooked(f.complete) || !f.filter.hooked(f.complete) {
		blameAll(errPending)
	}
	for _, t := range []*table{f.raw, f.filter} {
		programs := f.libraries[t]
		for name := range t.dirty {
			if _, wanted := t.want[name]; !wanted || t.frozen(name) {
				continue // a leftover harms nobody
			}
			err := errPending
			if refused := t.refused[name]; refused != nil {
				err = fmt.Errorf("chain %s: %w", name, refused)
			}
			switch {
			case strings.HasPrefix(name, fromPrefix):
				blame(strings.TrimPrefix(name, fromPrefix), err)
			case strings.HasPrefix(name, toPrefix):
				blame(strings.TrimPrefix(name, toPrefix), err)
			case programs.byChain[name] != ir.ProgramID{}:
				for iface := range programs.users[programs.byChain[name]] {
					blame(iface, err)
				}
			case ofHost(name), strings.HasPrefix(name, dropPrefix): // none of the pods' concern; drops anyway
			default: // a chain that all go through
				blameAll(err)
			}
		}
	}
	return closed
}

// ofHost reports whether a chain is a host endpoint's.
func ofHost(name string) bool {
	for _, prefix := range []string{hostInPrefix, hostOutPrefix, forwardInPrefix, forwardOutPrefix} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
