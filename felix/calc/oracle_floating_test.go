package calc_test

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/policy/selector"
)

// floating returns the floating addresses that lead to a local endpoint, with its
// interface.
func (o oracle) floating() map[netip.Addr]string {
	leads := map[netip.Addr]string{}
	for a, pod := range o.led() {
		if iface := o.interfaceFor(a, pod); iface != "" {
			leads[a] = iface
		}
	}
	return leads
}

// blocks are those of the API, and those floating addresses that lead to another
// node and are not blocks by themselves.
func (o oracle) blocks() []*event.Block {
	blocks := slices.Collect(maps.Values(all[*event.Block](o.state)))
	for a, pod := range o.led() {
		p := netip.PrefixFrom(a, a.BitLen())
		if all[*event.Block](o.state)[p.String()] == nil && pod.Node != o.node && pod.Node != "" {
			blocks = append(blocks, &event.Block{Block: ipam.Block{CIDR: p, Owner: ipam.Owner{Node: pod.Node}}})
		}
	}
	return blocks
}

// led returns the pods that floating addresses lead to.
func (o oracle) led() map[netip.Addr]*event.Pod {
	led := map[netip.Addr]*event.Pod{}
	for _, asking := range all[*event.Pod](o.state) {
		if asking.Floating == nil {
			continue
		}
		for _, a := range asking.Floating.Addrs {
			if pod := o.ledTo(a); pod != nil {
				led[a] = pod
			}
		}
	}
	return led
}

func (o oracle) ledTo(a netip.Addr) *event.Pod {
	var asking []*event.Pod
	for _, p := range all[*event.Pod](o.state) {
		if p.Floating != nil && slices.Contains(p.Floating.Addrs, a) && o.mayFloat(a, p) {
			asking = append(asking, p)
		}
	}
	if asking == nil {
		return nil
	}
	return slices.MinFunc(asking, func(a, b *event.Pod) int {
		return cmp.Or(cmp.Compare(a.Floating.Created, b.Floating.Created), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

func (o oracle) interfaceFor(a netip.Addr, pod *event.Pod) string {
	var ifaces []string
	for iface, ep := range all[*event.Endpoint](o.state) {
		reached := slices.ContainsFunc(ep.Addrs, func(own netip.Addr) bool { return own.Is4() == a.Is4() && o.holder(own) == iface })
		if reached && o.localPod(ep) == pod {
			ifaces = append(ifaces, iface)
		}
	}
	if ifaces == nil {
		return ""
	}
	return slices.Min(ifaces)
}

// mayFloat asks the narrowest pool of floating addresses around a.
func (o oracle) mayFloat(a netip.Addr, p *event.Pod) bool {
	var around []*event.Pool
	for _, pool := range all[*event.Pool](o.state) {
		if pool.Uses == ipam.Floating && pool.CIDR.Contains(a) {
			around = append(around, pool)
		}
	}
	if around == nil {
		return false
	}
	pool := slices.MinFunc(around, func(a, b *event.Pool) int {
		return cmp.Or(-cmp.Compare(a.CIDR.Bits(), b.CIDR.Bits()), cmp.Compare(a.Name, b.Name))
	})
	ns, node := all[*event.Namespace](o.state)[p.Namespace], all[*event.Node](o.state)[p.Node]
	return (pool.Namespaces == nil || ns != nil && pool.Namespaces.Matches(ns.Labels)) &&
		(pool.Nodes.IsAll() || node != nil && pool.Nodes.Matches(node.Labels))
}

func (d dice) floating() *event.Floating {
	if !d.chance(25) {
		return nil
	}
	f := &event.Floating{Created: int64(d.IntN(3))}
	for _, text := range []string{"10.0.0.2", "10.0.1.3", "203.0.113.1", "203.0.113.2", "2001:db8::1"} {
		if d.chance(40) {
			f.Addrs = append(f.Addrs, netip.MustParseAddr(text))
		}
	}
	return f
}

// floatingPool is one of floating addresses; that of pods may have its addresses too.
func (d dice) floatingPool() (string, event.Value) {
	cidr := pick(d, "203.0.113.0/24", "203.0.113.0/31", "2001:db8::/64", "10.0.0.0/30", "10.0.1.0/29")
	p := &event.Pool{Pool: ipam.Pool{Name: pick(d, "f1", "f2"), CIDR: netip.MustParsePrefix(cidr), BlockSize: 128, Uses: ipam.Floating}, Silent: d.chance(20)}
	p.Namespaces = pick(d, nil, nil, selector.Has("app"))
	p.Modes, p.Encrypted = d.modes(p.CIDR.Addr().Is6()), d.chance(10)
	p.Nodes = pick(d, nil, nil, selector.Has("role"))
	return p.Name, p
}
