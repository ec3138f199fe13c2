package calc

import (
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/floating"
	"github.com/koratnet/korat/policy/selector"
)

// floats says which floating addresses lead to local endpoints, and which to pods
// on other nodes. One whose local endpoint holds no address of its family leads
// nowhere.
type floats struct {
	in     *inputs
	labels *labels
	book   *floating.Book

	dirty   map[netip.Addr]struct{}
	leads   map[netip.Addr]string   // to the interface
	to      map[string][]netip.Addr // the same by interface, ascending
	abroad  map[netip.Addr]string   // to the other node
	changed map[netip.Addr]struct{} // in this flush
	woken   set                     // interfaces to or from which an address moved
}

func newFloats(in *inputs, labels *labels) floats {
	return floats{
		in: in, labels: labels, book: floating.New(), dirty: map[netip.Addr]struct{}{},
		leads: map[netip.Addr]string{}, to: map[string][]netip.Addr{}, abroad: map[netip.Addr]string{}, changed: map[netip.Addr]struct{}{}, woken: set{},
	}
}

func (f *floats) drain(holders *holders) {
	for name := range f.in.pods.was {
		f.mark(f.book.SetPod(name, f.in.pods.now[name]))
	}
	for name := range f.in.pools.was {
		f.book.SetPool(name, f.in.pools.now[name])
	}
	if len(f.in.pools.was)+len(f.in.nodes.was)+len(f.labels.moved) > 0 {
		f.mark(f.book.Asked()) // whole, because few pods ask for any
	}
	for _, was := range f.in.endpoints.was {
		f.reattach(was)
	}
	for a := range holders.changed {
		for _, ep := range holders.claims[a] {
			f.reattach(ep)
		}
	}
	for a := range f.dirty {
		f.decide(a, holders)
	}
}

// decide makes a lead to the pod that has it, here or on another node.
func (f *floats) decide(a netip.Addr, holders *holders) {
	iface, node := "", ""
	switch pod := f.book.Holder(a, f); {
	case pod == nil:
	case pod.Node == f.labels.node:
		iface = f.endpoint(a, pod, holders)
	default:
		node = pod.Node
	}
	f.lead(a, iface)
	if f.abroad[a] == node {
		return
	}
	f.changed[a] = struct{}{}
	if f.abroad[a] = node; node == "" {
		delete(f.abroad, a)
	}
}

func (f *floats) mark(addrs []netip.Addr) {
	for _, a := range addrs {
		f.dirty[a] = struct{}{}
	}
}

// reattach marks what the pod of an endpoint asks for; nil: there is none.
func (f *floats) reattach(ep *event.Endpoint) {
	if ep == nil {
		return
	}
	if p := f.in.pods.now[podOf(ep)]; p != nil && p.Floating != nil {
		f.mark(p.Floating.Addrs)
	}
}

// endpoint returns the interface of a local pod at which it has an address of the
// family of a, "" if there is none.
func (f *floats) endpoint(a netip.Addr, pod *event.Pod, holders *holders) string {
	first := ""
	for iface, ep := range f.labels.attached[pod.Namespace+"/"+pod.Name] {
		sameFamily := func(own netip.Addr) bool { return own.Is4() == a.Is4() }
		if (first == "" || iface < first) && f.labels.localPod(ep) != nil && slices.ContainsFunc(heldBy(iface, ep.Addrs, holders), sameFamily) {
			first = iface
		}
	}
	return first
}

// lead makes a lead to the endpoint behind iface, "": to none.
func (f *floats) lead(a netip.Addr, iface string) {
	was := f.leads[a]
	if was == iface {
		return
	}
	f.changed[a] = struct{}{}
	if was != "" {
		delete(f.leads, a)
		f.woken.add(was)
		rest := slices.DeleteFunc(slices.Clone(f.to[was]), func(x netip.Addr) bool { return x == a })
		if f.to[was] = rest; len(rest) == 0 {
			delete(f.to, was)
		}
	}
	if iface != "" {
		f.leads[a] = iface
		f.woken.add(iface)
		f.to[iface] = append(slices.Clone(f.to[iface]), a)
		slices.SortFunc(f.to[iface], netip.Addr.Compare)
	}
}

// has reports whether p is a floating address of a local pod.
func (f *floats) has(p netip.Prefix) bool { return p.IsSingleIP() && f.leads[p.Addr()] != "" }

// nodeOf returns the other node to which p leads, "" unless it is a floating address
// of a pod there.
func (f *floats) nodeOf(p netip.Prefix) string {
	if !p.IsSingleIP() {
		return ""
	}
	return f.abroad[p.Addr()]
}

// NamespaceLabels implements floating.World.
func (f *floats) NamespaceLabels(name string) (selector.Labels, bool) {
	ns := f.labels.namespace(name)
	return ns.Labels, ns.Known
}

// NodeLabels implements floating.World.
func (f *floats) NodeLabels(name string) (selector.Labels, bool) {
	if n := f.in.nodes.now[name]; n != nil {
		return n.Labels, true
	}
	return nil, false
}

func (f *floats) settle() {
	forget(&f.dirty)
	forget(&f.changed)
	forget(&f.woken)
}
