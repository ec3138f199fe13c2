package controller

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/annotation"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/vip"
	"github.com/koratnet/korat/policy/selector"
)

// balancerWorld is what decides about the addresses of services, themselves aside.
type balancerWorld struct {
	pools      []ipam.Pool
	reserved   []netip.Prefix
	namespaces map[string]selector.Labels
	all        bool // services without a class too
}

// world reads the cache.
func (c cluster) world(ctx context.Context) (*balancerWorld, error) {
	w := &balancerWorld{namespaces: map[string]selector.Labels{}}
	var pools koratv1.IPPoolList
	var reservations koratv1.IPReservationList
	var configurations koratv1.BGPConfigurationList
	namespaces := metav1.PartialObjectMetadataList{}
	namespaces.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NamespaceList"))
	if err := c.lists(ctx, &pools, &reservations, &configurations, &namespaces); err != nil {
		return nil, err
	}
	for i := range pools.Items {
		if p, ok := balancerPool(&pools.Items[i], pools.Items); ok {
			w.pools = append(w.pools, p)
		}
	}
	for _, r := range reservations.Items {
		for _, n := range r.Spec.CIDRs {
			if p, err := netip.ParsePrefix(string(n)); err == nil {
				w.reserved = append(w.reserved, p.Masked())
			}
		}
	}
	for _, n := range namespaces.Items {
		w.namespaces[n.Name] = selector.MakeLabels(n.Labels)
	}
	for _, conf := range configurations.Items {
		w.all = w.all || conf.Name == koratv1.BGPConfigurationName && conf.Spec.LoadBalancers == koratv1.LoadBalancersAll
	}
	return w, nil
}

// balancerPool reads a pool as it concerns services. One that overlaps an older one,
// or of which nobody can tell for whom it is, gives nothing out.
func balancerPool(p *koratv1.IPPool, all []koratv1.IPPool) (ipam.Pool, bool) {
	cidr, err := netip.ParsePrefix(string(p.Spec.CIDR))
	if err != nil {
		return ipam.Pool{}, false
	}
	out := ipam.Pool{
		Name: p.Name, CIDR: cidr.Masked(), Manual: p.Spec.Assignment == koratv1.AssignManual,
		Disabled: p.Spec.Disabled || p.DeletionTimestamp != nil || overlapping(p, all) != nil,
	}
	for _, u := range p.Spec.AllowedUses {
		out.Uses |= map[koratv1.PoolUse]ipam.Use{
			koratv1.UsePods: ipam.Pods, koratv1.UseTunnel: ipam.Tunnel, koratv1.UseLoadBalancer: ipam.LoadBalancer, koratv1.UseFloating: ipam.Floating,
		}[u]
	}
	if p.Spec.NamespaceSelector != "" {
		namespaces, err := selector.Parse(p.Spec.NamespaceSelector)
		out.Namespaces, out.Disabled = namespaces, out.Disabled || err != nil
	}
	return out, true
}

// concerns reports whether s gets its addresses here.
func (w *balancerWorld) concerns(s *corev1.Service) bool {
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return false
	}
	if s.Spec.LoadBalancerClass == nil {
		return w.all
	}
	return *s.Spec.LoadBalancerClass == koratv1.LoadBalancerClass
}

// ask puts what s wants into the words of package vip. One whose wishes cannot be
// read keeps what it has and wants nothing else.
func (w *balancerWorld) ask(s *corev1.Service) vip.Service {
	out := vip.Service{Name: s.Namespace + "/" + s.Name, Created: s.CreationTimestamp.Time, Has: addressesOf(s)}
	out.Namespace, out.Known = w.namespaces[s.Namespace]
	out.Families, out.Lenient = families(s)
	wishes, err := wishesOf(s)
	if err != nil {
		out.Families = nil
		for _, a := range out.Has {
			out.Families = append(out.Families, a.BitLen())
		}
		return out
	}
	out.Requested, out.Pools = wishes.Addrs, wishes.Pools
	return out
}

// wishesOf reads the annotations of s. The field that came before them counts where
// they name no address of its family.
func wishesOf(s *corev1.Service) (annotation.BalancerWishes, error) {
	w, err := annotation.ParseBalancer(s.Annotations)
	if err != nil || s.Spec.LoadBalancerIP == "" {
		return w, err
	}
	a, err := netip.ParseAddr(s.Spec.LoadBalancerIP)
	if err != nil {
		return w, fmt.Errorf("spec.loadBalancerIP is %q, expected an address", s.Spec.LoadBalancerIP)
	}
	for _, other := range w.Addrs {
		if other.BitLen() == a.BitLen() {
			return w, nil
		}
	}
	w.Addrs = append(w.Addrs, a.Unmap())
	return w, nil
}

// problem is what of s cannot be understood or done, whatever addresses there are.
func (w *balancerWorld) problem(s *corev1.Service) finding {
	wishes, err := wishesOf(s)
	if err != nil {
		return finding{koratv1.ReasonInvalid, err.Error()}
	}
	lengths, _ := families(s)
	for _, a := range wishes.Addrs {
		wanted := false
		for _, l := range lengths {
			wanted = wanted || l == a.BitLen()
		}
		if !wanted {
			return finding{koratv1.ReasonInvalid, fmt.Sprintf("%s is asked for, and spec.ipFamilies does not name its family", a)}
		}
	}
	return finding{}
}
