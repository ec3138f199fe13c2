// Package floating knows to which pod a floating address leads: one outside of
// pods that some ask for in an annotation. It is pure. The engine asks it what to
// program, and the agent, when a pod starts, whether it may.
//
// Every node hears of all pods and comes to the same answer: an address leads to
// the oldest of those pods that may have it, and of equally old ones to the first
// by name. So an address has one pod, without anybody to hand it out.
package floating

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/policy/selector"
)

// World tells the labels of namespaces and nodes, or that they are not known.
type World interface {
	NamespaceLabels(name string) (selector.Labels, bool)
	NodeLabels(name string) (selector.Labels, bool)
}

// Book holds who asks for which address, and the pools. It is not safe for
// concurrent use.
type Book struct {
	pods   map[string]*event.Pod // those that ask for some, by namespace/name
	claims map[netip.Addr]map[string]struct{}
	pools  map[string]*event.Pool // those of floating addresses
}

// New returns a Book of nothing.
func New() *Book {
	return &Book{pods: map[string]*event.Pod{}, claims: map[netip.Addr]map[string]struct{}{}, pools: map[string]*event.Pool{}}
}

// SetPod says what a pod, namespace/name, is now; nil: it is gone. It returns the
// addresses that it asks for now or asked for before.
func (b *Book) SetPod(name string, p *event.Pod) []netip.Addr {
	var touched []netip.Addr
	if was := b.pods[name]; was != nil {
		for _, a := range was.Floating.Addrs {
			if delete(b.claims[a], name); len(b.claims[a]) == 0 {
				delete(b.claims, a)
			}
		}
		touched = was.Floating.Addrs
		delete(b.pods, name)
	}
	if p == nil || p.Floating == nil {
		return touched
	}
	b.pods[name] = p
	for _, a := range p.Floating.Addrs {
		if b.claims[a] == nil {
			b.claims[a] = map[string]struct{}{}
		}
		b.claims[a][name] = struct{}{}
	}
	return slices.Concat(touched, p.Floating.Addrs)
}

// SetPool says what a pool is now; nil: it is gone. Those that have any other use
// than floating addresses have none.
func (b *Book) SetPool(name string, p *event.Pool) {
	if delete(b.pools, name); p != nil && p.Uses == ipam.Floating {
		b.pools[name] = p
	}
}

// Asked returns the addresses that pods ask for, in no order.
func (b *Book) Asked() []netip.Addr { return slices.Collect(maps.Keys(b.claims)) }

// Holder returns the pod that a leads to, nil if there is none.
func (b *Book) Holder(a netip.Addr, w World) *event.Pod {
	pool := b.pool(a)
	var holder *event.Pod
	for name := range b.claims[a] {
		p := b.pods[name]
		if (holder == nil || older(p, holder)) && serves(pool, p.Namespace, p.Node, w) == nil {
			holder = p
		}
	}
	return holder
}

// Refusal says why a pod that starts on node does not get a; nil: it does. The pod
// itself need not be known yet.
func (b *Book) Refusal(a netip.Addr, namespace, pod, node string, w World) error {
	pool := b.pool(a)
	if err := serves(pool, namespace, node, w); err != nil {
		return fmt.Errorf("%s %w", a, err)
	}
	if pool.Disabled {
		return fmt.Errorf("%s is of IPPool %q, which is disabled", a, pool.Name)
	}
	if h := b.Holder(a, w); h != nil && (h.Namespace != namespace || h.Name != pod) {
		return fmt.Errorf("%s leads to pod %s/%s on node %q, which was there first", a, h.Namespace, h.Name, h.Node)
	}
	return nil
}

// pool returns the narrowest pool that a lies in, of equals the first by name, nil
// if there is none. Pools are few.
func (b *Book) pool(a netip.Addr) (best *event.Pool) {
	for _, p := range b.pools {
		if p.CIDR.Contains(a) && (best == nil || cmp.Or(cmp.Compare(best.CIDR.Bits(), p.CIDR.Bits()), cmp.Compare(p.Name, best.Name)) < 0) {
			best = p
		}
	}
	return best
}

// serves says why a pool is not for pods of a namespace on a node. While nobody can
// tell who they are, it is not.
func serves(pool *event.Pool, namespace, node string, w World) error {
	if pool == nil {
		return fmt.Errorf("is in no IPPool of which allowedUses is Floating alone")
	}
	if pool.Namespaces != nil {
		if labels, known := w.NamespaceLabels(namespace); !known || !pool.Namespaces.Matches(labels) {
			return fmt.Errorf("is of IPPool %q, whose namespaceSelector does not match namespace %s", pool.Name, namespace)
		}
	}
	if !pool.Nodes.IsAll() {
		if labels, known := w.NodeLabels(node); !known || !pool.Nodes.Matches(labels) {
			return fmt.Errorf("is of IPPool %q, whose nodeSelector does not match node %s", pool.Name, node)
		}
	}
	return nil
}

func older(a, b *event.Pod) bool {
	return cmp.Or(cmp.Compare(a.Floating.Created, b.Floating.Created), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name)) < 0
}
