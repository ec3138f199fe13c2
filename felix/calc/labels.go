package calc

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/match"
)

// labels knows everything in the cluster that a scope may select as a thing with
// labels and addresses, and every namespace with its labels.
type labels struct {
	in    *inputs
	node  string
	index byKind[*match.Things[string]] // by the names of their events
	// attached are the local endpoints of each pod, by pod and interface: the CNI
	// plugin knows an address before the API server does, and gives it up later.
	attached map[string]map[string]*event.Endpoint
	// overlay is what attached says of the addresses of local pods, as it stood
	// at the end of the last flush or, once drained, of this one.
	overlay map[string][]netip.Addr

	changed byKind[map[string]*thing]         // in this flush, with what they were; nil did not exist
	moved   map[string]moved[match.Namespace] // namespaces relabelled in this flush
}

// moved is a state before and after; nil did not or does not exist.
type moved[V any] struct{ was, is *V }

func newLabels(in *inputs, node string) labels {
	l := labels{
		in: in, node: node,
		attached: map[string]map[string]*event.Endpoint{}, overlay: map[string][]netip.Addr{},
		moved: map[string]moved[match.Namespace]{},
	}
	for i := range l.index {
		l.index[i], l.changed[i] = match.NewThings[string](), map[string]*thing{}
	}
	return l
}

func (l *labels) drain() {
	for name := range l.in.namespaces.was {
		l.relabel(name)
	}
	pods := l.attach()
	l.staff(pods)
	if n := len(l.in.pods.was); n > large {
		*l.changed.of(policy.Pods) = make(map[string]*thing, n)
	}
	for pod := range pods {
		l.update(pod, l.in.pods.before(pod))
	}
	for pod, was := range l.in.pods.was {
		if !pods.has(pod) {
			l.update(pod, was)
		}
	}
	for name, was := range l.in.networkSets.was {
		is := l.in.networkSets.now[name]
		if was != nil {
			l.change(kindOf(was), name, networkSetThing(was), networkSetThing(is))
		} else {
			l.change(kindOf(is), name, nil, networkSetThing(is))
		}
	}
	for name, was := range l.in.hosts.was {
		l.change(policy.HostEndpoints, name, hostThing(was), hostThing(l.in.hosts.now[name]))
	}
	for name, was := range l.in.nodes.was {
		l.change(policy.Nodes, name, nodeThing(was), nodeThing(l.in.nodes.now[name]))
	}
}

// relabel takes over a changed namespace.
func (l *labels) relabel(name string) {
	before := l.namespace(name)
	is := l.in.namespaces.now[name]
	for _, kind := range policy.AllThings {
		switch index := *l.index.of(kind); {
		case !kind.Namespaced():
		case is != nil:
			index.SetNamespace(name, is.Labels)
		default:
			index.RemoveNamespace(name)
		}
	}
	after := l.namespace(name)
	l.moved[name] = moved[match.Namespace]{&before, &after}
}

// namespace returns what is known of a namespace.
func (l *labels) namespace(name string) match.Namespace {
	return (*l.index.of(policy.Pods)).Namespace(name)
}

// namespaceBefore returns what was known of a namespace at the last flush.
func (l *labels) namespaceBefore(name string) match.Namespace {
	if m, ok := l.moved[name]; ok {
		return *m.was
	}
	return l.namespace(name)
}

// attach takes over changed local endpoints and returns the pods concerned.
func (l *labels) attach() set {
	pods := set{}
	for iface, was := range l.in.endpoints.was {
		if was != nil {
			pod := podOf(was)
			pods.add(pod)
			if delete(l.attached[pod], iface); len(l.attached[pod]) == 0 {
				delete(l.attached, pod)
			}
		}
		if is := l.in.endpoints.now[iface]; is != nil {
			pod := podOf(is)
			pods.add(pod)
			if l.attached[pod] == nil {
				l.attached[pod] = map[string]*event.Endpoint{}
			}
			l.attached[pod][iface] = is
		}
	}
	return pods
}

// staff adds the pods that run as one of the changed service accounts. Each
// change walks the pods of a namespace: people relabel accounts by hand, and an
// index for that would cost every pod.
func (l *labels) staff(pods set) {
	for name := range l.in.accounts.was {
		account := l.in.accounts.now[name]
		if account == nil {
			account = l.in.accounts.was[name]
		}
		for pod := range (*l.index.of(policy.Pods)).In(account.Namespace) {
			if p := l.in.pods.now[pod]; p != nil && p.Account == account.Name {
				pods.add(pod)
			}
		}
	}
}

// update takes over a pod whose object, which was before, or whose account or
// local endpoints changed.
func (l *labels) update(pod string, before *event.Pod) {
	was, now := l.podThing(pod, before, l.in.accounts.before), l.in.pods.now[pod]
	if addrs := l.attachedAddrs(pod, now); addrs != nil {
		l.overlay[pod] = addrs
	} else {
		delete(l.overlay, pod)
	}
	l.change(policy.Pods, pod, was, l.podThing(pod, now, l.in.accounts.get))
}

// change takes over a thing that was and now is.
func (l *labels) change(kind policy.Things, name string, was, is *thing) {
	switch index := *l.index.of(kind); {
	case is == nil && was == nil, is != nil && was != nil && is.equal(was):
		return
	case is == nil:
		index.Remove(name)
	default:
		index.Set(name, is.namespace, is.labels)
	}
	(*l.changed.of(kind))[name] = was
}

// podThing returns what the pod with object p is with the overlay as it stands.
func (l *labels) podThing(pod string, p *event.Pod, accounts func(string) *event.ServiceAccount) *thing {
	if p == nil {
		return nil
	}
	t := &thing{namespace: p.Namespace, labels: p.Labels, ends: l.podEnds(pod, p)}
	if p.Account == "" {
		return t
	}
	if a := accounts(accountOf(p)); a != nil {
		t.labels = policy.PodLabels(p.Labels, p.Account, a.Labels)
	} else {
		t.labels = policy.PodLabels(p.Labels, p.Account, nil)
	}
	return t
}

func (l *labels) podEnds(pod string, p *event.Pod) ends {
	addrs, attached := l.overlay[pod]
	if !attached {
		addrs = p.Addrs
	}
	return ends{addrs: addrs, ports: p.Ports}
}

// ends returns the ends of a thing, which exists.
func (l *labels) ends(kind policy.Things, name string) ends {
	switch kind {
	case policy.NetworkSets, policy.GlobalNetworkSets:
		return networkSetThing(l.in.networkSets.now[name]).ends
	case policy.HostEndpoints:
		return hostThing(l.in.hosts.now[name]).ends
	case policy.Nodes:
		return nodeThing(l.in.nodes.now[name]).ends
	}
	return l.podEnds(name, l.in.pods.now[name])
}

// attachedAddrs returns the addresses of the endpoints of a pod that now is p,
// nil when it has none. A pod that now runs elsewhere has the name of the
// endpoint's pod but is another one: its addresses are its own.
func (l *labels) attachedAddrs(pod string, p *event.Pod) []netip.Addr {
	if p == nil || p.Node != l.node {
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

// accountKnown reports whether the labels of the pod's service account are known.
func (l *labels) accountKnown(p *event.Pod) bool {
	return p.Account == "" || l.in.accounts.now[accountOf(p)] != nil
}

// each visits the ends of the things that scope selects.
func (l *labels) each(scope policy.Scope, visit func(ends)) {
	for _, kind := range policy.AllThings {
		if here, ok := scope.For(kind); ok {
			for name := range (*l.index.of(kind)).Matching(here) {
				visit(l.ends(kind, name))
			}
		}
	}
}

func (l *labels) settle() {
	for i := range l.changed {
		forget(&l.changed[i])
	}
	forget(&l.moved)
}

// podOf returns the key of the pod that an endpoint belongs to.
func podOf(ep *event.Endpoint) string { return ep.Handle.Namespace + "/" + ep.Handle.Pod }

// accountOf returns the key of the service account that a pod runs as.
func accountOf(p *event.Pod) string { return p.Namespace + "/" + p.Account }
