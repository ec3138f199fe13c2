// Package addresses reads a cluster's books of addresses: who has which, how full
// pools are, and whether the books agree. It is pure but for read.go; koratctl ipam
// asks it.
package addresses

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/cniserver/audit"
)

// Books are what the API server knows of addresses, and what agents told.
type Books struct {
	Pools        []koratv1.IPPool
	Reservations []koratv1.IPReservation
	Blocks       []koratv1.Block
	Pods         []corev1.Pod
	Nodes        map[string]string // UID by name
	Agents       []audit.Node      // of nodes whose agents were asked
}

// block is a Block whose texts are parsed.
type block struct {
	*koratv1.Block
	cidr netip.Prefix
}

// blocks returns the blocks by their addresses, wide ones before those inside.
func (b *Books) blocks() (out []block) {
	for i := range b.Blocks {
		if p, err := netip.ParsePrefix(string(b.Blocks[i].Spec.CIDR)); err == nil {
			out = append(out, block{&b.Blocks[i], p})
		}
	}
	slices.SortFunc(out, func(x, y block) int {
		return cmp.Or(x.cidr.Addr().Compare(y.cidr.Addr()), cmp.Compare(x.cidr.Bits(), y.cidr.Bits()))
	})
	return out
}

// narrowest returns the block that a belongs to.
func narrowest(blocks []block, a netip.Addr) (best block, found bool) {
	for _, b := range blocks {
		if b.cidr.Contains(a) && (!found || b.cidr.Bits() > best.cidr.Bits()) {
			best, found = b, true
		}
	}
	return best, found
}

// pods returns the pods with addresses of pools: those on the host network and
// those that have finished have none.
func (b *Books) pods() (out []*corev1.Pod) {
	for i := range b.Pods {
		p := &b.Pods[i]
		finished := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
		if !p.Spec.HostNetwork && !finished {
			out = append(out, p)
		}
	}
	return out
}

func addrsOf(p *corev1.Pod) (out []netip.Addr) {
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// entries parses a list of a block's status.
func entries(list []koratv1.BlockAddress) map[netip.Addr]string {
	out := make(map[netip.Addr]string, len(list))
	for _, e := range list {
		if a, err := netip.ParseAddr(e.Address); err == nil {
			out[a] = e.Pod
		}
	}
	return out
}
