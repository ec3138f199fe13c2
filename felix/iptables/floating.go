package iptables

import (
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy/ir"
)

// float is a floating address with the pod's own that it leads to.
type float struct{ addr, pod netip.Addr }

// floatsOf returns those of e that are of a family, ascending.
func floatsOf(e *desired.Endpoint, f ir.Family) []float {
	if e == nil || !ifaceName.MatchString(e.Interface) {
		return nil
	}
	own := familyAddrs(e, f)
	var all []float
	for _, a := range e.Floating {
		if f.Is(a) && len(own) > 0 {
			all = append(all, float{a, own[0]})
		}
	}
	return all
}

// wantFloats keeps in mind which floating addresses lead to the pod behind iface.
func (f *Firewall) wantFloats(iface string, e *desired.Endpoint) {
	now := floatsOf(e, f.cfg.Family)
	if slices.Equal(now, f.floats[iface]) {
		return
	}
	f.restyled = true
	if delete(f.floats, iface); len(now) > 0 {
		f.floats[iface] = now
	}
}

// allFloats returns those of all pods, ascending.
func (f *Firewall) allFloats() []float {
	var all []float
	for _, some := range f.floats {
		all = append(all, some...)
	}
	slices.SortFunc(all, func(a, b float) int { return a.addr.Compare(b.addr) })
	return all
}

// floating leads packets to floating addresses on to their pods.
func (s style) floating() []rule {
	var rules []rule
	for _, x := range s.floats {
		rules = append(rules, specs("-d "+x.addr.String()+" -j DNAT --to-destination "+x.pod.String())...)
	}
	return rules
}

// floated gives packets of pods that have a floating address, the first if there
// are several, that one: where they leave the cluster, and where a pod asks for its
// own, because the answer would not come back through the node.
func (s style) floated() []rule {
	var rules []rule
	done := map[netip.Addr]bool{}
	for _, x := range s.floats {
		if done[x.pod] {
			continue
		}
		done[x.pod] = true
		from, hide := "-s "+x.pod.String(), " -j SNAT --to-source "+x.addr.String()
		rules = append(rules, specs(from+" -d "+x.pod.String()+hide)...)
		if s.inside {
			rules = append(rules, specs(from+" "+s.stranger(desired.InsideSet, "dst")+hide)...)
		}
	}
	return rules
}
