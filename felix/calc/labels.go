package calc

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/match"
	"github.com/koratnet/korat/policy/selector"
)

// labels knows every pod of the cluster as a thing with labels and addresses,
// and every namespace with its labels.
type labels struct {
	in    *inputs
	node  string
	index *match.Things[string] // pods, by namespace/name
	// attached are the local endpoints of each pod, by pod and interface: the CNI
	// plugin knows an address before the API server does, and gives it up later.
	attached map[string]map[string]*event.Endpoint
	// overlay is what attached says of the addresses of local pods, as it stood
	// at the end of the last flush or, once drained, of this one.
	overlay map[string][]netip.Addr

	changed map[string]moved[thing]           // pods changed in this flush
	moved   map[string]moved[match.Namespace] // namespaces relabelled in this flush
}

// thing is a pod as selectors and address sets see it.
type thing struct {
	namespace string
	labels    selector.Labels
	addrs     []netip.Addr
}

// moved is a state before and after; nil did not or does not exist.
type moved[V any] struct{ was, is *V }

func newLabels(in *inputs, node string) labels {
	return labels{
		in: in, node: node, index: match.NewThings[string](),
		attached: map[string]map[string]*event.Endpoint{}, overlay: map[string][]netip.Addr{},
		changed: map[string]moved[thing]{}, moved: map[string]moved[match.Namespace]{},
	}
}

func (l *labels) drain() {
	for name := range l.in.namespaces.was {
		l.relabel(name)
	}
	pods := l.attach()
	for pod := range pods {
		l.update(pod)
	}
	for pod := range l.in.pods.was {
		if !pods[pod] {
			l.update(pod)
		}
	}
}

// relabel takes over a changed namespace.
func (l *labels) relabel(name string) {
	before := l.index.Namespace(name)
	if is := l.in.namespaces.now[name]; is != nil {
		l.index.SetNamespace(name, is.Labels)
	} else {
		l.index.RemoveNamespace(name)
	}
	after := l.index.Namespace(name)
	l.moved[name] = moved[match.Namespace]{&before, &after}
}

// attach takes over changed local endpoints and returns the pods concerned.
func (l *labels) attach() map[string]bool {
	pods := map[string]bool{}
	for iface, was := range l.in.endpoints.was {
		if was != nil {
			pod := podOf(was)
			pods[pod] = true
			if delete(l.attached[pod], iface); len(l.attached[pod]) == 0 {
				delete(l.attached, pod)
			}
		}
		if is := l.in.endpoints.now[iface]; is != nil {
			pod := podOf(is)
			pods[pod] = true
			if l.attached[pod] == nil {
				l.attached[pod] = map[string]*event.Endpoint{}
			}
			l.attached[pod][iface] = is
		}
	}
	return pods
}

// update takes over a pod whose object or whose local endpoints changed.
func (l *labels) update(pod string) {
	was := l.thing(pod, l.in.pods.before(pod))
	if addrs := l.attachedAddrs(pod); addrs != nil {
		l.overlay[pod] = addrs
	} else {
		delete(l.overlay, pod)
	}
	is := l.thing(pod, l.in.pods.now[pod])
	switch {
	case is == nil && was == nil, is != nil && was != nil && is.equal(was):
		return
	case is == nil:
		l.index.Remove(pod)
	default:
		l.index.Set(pod, is.namespace, is.labels)
	}
	l.changed[pod] = moved[thing]{was, is}
}

// thing returns what the pod with object p is with the overlay as it stands.
func (l *labels) thing(pod string, p *event.Pod) *thing {
	if p == nil {
		return nil
	}
	addrs, attached := l.overlay[pod]
	if !attached {
		addrs = p.Addrs
	}
	return &thing{p.Namespace, p.Labels, addrs}
}

// attachedAddrs returns the addresses of a local pod's endpoints, nil when it
// has none. A pod that now runs elsewhere has the name of the endpoint's pod but
// is another one: its addresses are its own.
func (l *labels) attachedAddrs(pod string) []netip.Addr {
	if l.localPod(pod) == nil {
		return nil
	}
	eps := l.attached[pod]
	var addrs []netip.Addr
	for _, iface := range slices.Sorted(maps.Keys(eps)) {
		addrs = append(addrs, eps[iface].Addrs...)
	}
	return addrs
}

// localPod returns the pod's object if the API server knows it on this node.
func (l *labels) localPod(pod string) *event.Pod {
	if p := l.in.pods.now[pod]; p != nil && p.Node == l.node {
		return p
	}
	return nil
}

// matching iterates the addresses of the pods that scope selects, each address
// as often as pods have it.
func (l *labels) matching(scope policy.Scope) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for pod := range l.index.Matching(scope) {
			for _, a := range l.thing(pod, l.in.pods.now[pod]).addrs {
				if !yield(a) {
					return
				}
			}
		}
	}
}

// namespaceBefore returns what was known of a namespace at the last flush.
func (l *labels) namespaceBefore(name string) match.Namespace {
	if m, ok := l.moved[name]; ok {
		return *m.was
	}
	return l.index.Namespace(name)
}

func (l *labels) settle() {
	forget(&l.changed)
	forget(&l.moved)
}

func (t *thing) equal(o *thing) bool {
	return t.namespace == o.namespace && t.labels.Equal(o.labels) && slices.Equal(t.addrs, o.addrs)
}

// podOf returns the key of the pod that an endpoint belongs to.
func podOf(ep *event.Endpoint) string { return ep.Handle.Namespace + "/" + ep.Handle.Pod }
