package calc

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/match"
	"github.com/koratnet/korat/policy/selector"
)

// labels knows everything in the cluster that a scope may select as a thing with
// labels and addresses, and every namespace with its labels. It keeps each thing
// as it made it, because a pod is made of more than its object.
type labels struct {
	in     *inputs
	node   string
	things byKind[map[string]*thing] // by the names of their events
	index  byKind[*match.Rows[*thing]]
	// attached are the local endpoints of each pod, by pod and interface: the CNI
	// plugin knows an address before the API server does, and gives it up later.
	attached map[string]map[string]*event.Endpoint
	// employed is what the known service accounts add to the labels of their pods,
	// by account, where a pod has asked for it.
	employed map[string]selector.Labels

	changed byKind[[]moved[thing]]            // in this flush, each thing once
	moved   map[string]moved[match.Namespace] // namespaces relabelled in this flush
}

// moved is a state before and after; nil did not or does not exist.
type moved[V any] struct{ was, is *V }

func newLabels(in *inputs, node string) labels {
	l := labels{
		in: in, node: node,
		attached: map[string]map[string]*event.Endpoint{}, employed: map[string]selector.Labels{},
		moved: map[string]moved[match.Namespace]{},
	}
	for i := range l.index {
		l.things[i], l.index[i] = map[string]*thing{}, match.NewRows[*thing]()
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
		l.expect(n)
	}
	for pod := range pods {
		l.update(pod)
	}
	for pod := range l.in.pods.was {
		if !pods.has(pod) {
			l.update(pod)
		}
	}
	for name, was := range l.in.networkSets.was {
		is := l.in.networkSets.now[name]
		l.change(kindOf(cmp.Or(is, was)), name, networkSetThing(is))
	}
	for name := range l.in.hosts.was {
		l.change(policy.HostEndpoints, name, hostThing(l.in.hosts.now[name]))
	}
	for name := range l.in.nodes.was {
		l.change(policy.Nodes, name, nodeThing(l.in.nodes.now[name]))
	}
}

// expect makes room for n more pods: a map that grows costs more.
func (l *labels) expect(n int) {
	if things := l.things.of(policy.Pods); len(*things) == 0 {
		*things = make(map[string]*thing, n)
		(*l.index.of(policy.Pods)).Grow(n)
	}
	*l.changed.of(policy.Pods) = make([]moved[thing], 0, n)
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
	for name, account := range l.in.accounts.was {
		delete(l.employed, name)
		account = cmp.Or(l.in.accounts.now[name], account)
		for t := range (*l.index.of(policy.Pods)).In(account.Namespace) {
			if p := l.in.pods.now[t.name]; p != nil && p.Account == account.Name {
				pods.add(t.name)
			}
		}
	}
}

// update takes over a pod whose object, account or local endpoints changed.
func (l *labels) update(pod string) {
	p := l.in.pods.now[pod]
	if p == nil {
		l.change(policy.Pods, pod, nil)
		return
	}
	t := &thing{namespace: p.Namespace, labels: l.podLabels(p), ends: ends{addrs: p.Addrs, ports: p.Ports}}
	if addrs := l.attachedAddrs(pod, p); addrs != nil {
		t.addrs = addrs
	}
	if len(t.addrs) == 1 {
		t.one[0] = t.addrs[0]
		t.addrs = t.one[:]
	}
	l.change(policy.Pods, pod, t)
}

// podLabels returns what selectors see of a pod.
func (l *labels) podLabels(p *event.Pod) selector.Labels {
	if p.Account == "" {
		return p.Labels
	}
	name := accountOf(p)
	add, asked := l.employed[name]
	if !asked {
		a := l.in.accounts.now[name]
		if a == nil {
			return policy.PodLabels(p.Labels, p.Account, nil)
		}
		add = policy.AccountLabels(p.Account, a.Labels)
		l.employed[name] = add
	}
	return selector.Merge(p.Labels, add)
}

// change takes over a thing that now is.
func (l *labels) change(kind policy.Things, name string, is *thing) {
	things, index := *l.things.of(kind), *l.index.of(kind)
	was := things[name]
	if is != nil {
		is.name = name
	}
	switch {
	case is == nil && was == nil, is != nil && was != nil && is.equal(was):
		return
	case is == nil:
		index.Remove(was.row)
		delete(things, name)
	case was == nil:
		is.row = index.Add(is, is.namespace, is.labels)
		things[name], is.new = is, true
	default:
		is.row = index.Change(was.row, is, is.namespace, is.labels)
		things[name], is.new = is, true
	}
	changed := l.changed.of(kind)
	*changed = append(*changed, moved[thing]{was, is})
}

// attachedAddrs returns the addresses of the endpoints of a pod, nil when it has
// none.
func (l *labels) attachedAddrs(pod string, p *event.Pod) (addrs []netip.Addr) {
	if p.Node != l.node {
		return nil // a pod that now runs elsewhere is another one than the endpoint's
	}
	eps := l.attached[pod]
	for _, iface := range slices.Sorted(maps.Keys(eps)) {
		if eps[iface].UID.May(p.UID) {
			addrs = append(addrs, eps[iface].Addrs...)
		}
	}
	return addrs
}

// pod returns what is known of a pod that exists.
func (l *labels) pod(name string) *thing { return (*l.things.of(policy.Pods))[name] }

// localPod returns the object of the pod behind a local endpoint, if the API
// server knows it on this node. A pod that is made anew under the name of one
// whose sandbox still runs is another pod.
func (l *labels) localPod(ep *event.Endpoint) *event.Pod {
	if p := l.in.pods.now[podOf(ep)]; p != nil && p.Node == l.node && ep.UID.May(p.UID) {
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
			for t := range (*l.index.of(kind)).Matching(here) {
				visit(t.ends)
			}
		}
	}
}

func (l *labels) settle() {
	for i := range l.changed {
		for _, c := range l.changed[i] {
			if c.is != nil {
				c.is.new = false
			}
		}
		if clear(l.changed[i]); cap(l.changed[i]) > large {
			l.changed[i] = nil
		}
		l.changed[i] = l.changed[i][:0]
	}
	forget(&l.moved)
}

// podOf returns the key of the pod that an endpoint belongs to.
func podOf(ep *event.Endpoint) string { return ep.Handle.Namespace + "/" + ep.Handle.Pod }

// accountOf returns the key of the service account that a pod runs as.
func accountOf(p *event.Pod) string { return p.Namespace + "/" + p.Account }
