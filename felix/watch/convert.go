package watch

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/convert"
	"github.com/koratnet/korat/policy/selector"
)

// The converters parse once into strict values. What an object says wrongly is
// told to its author by `korat controller`; here it becomes its closed reading.

func namespacedName(o metav1.Object) string { return o.GetNamespace() + "/" + o.GetName() }

func namespace(obj any) (string, event.Value) {
	n := obj.(*corev1.Namespace)
	return n.Name, &event.Namespace{Name: n.Name, Labels: selector.MakeLabels(n.Labels)}
}

func node(obj any) (string, event.Value) {
	n := obj.(*corev1.Node)
	v := &event.Node{Name: n.Name, UID: string(n.UID), Labels: selector.MakeLabels(n.Labels)}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			v.Addrs = appendAddr(v.Addrs, a.Address)
		}
	}
	return n.Name, v
}

// pod: a pod on the host network has its node's address and is no endpoint; a
// finished one has given its address back although the object stays. A
// terminating pod keeps everything until its sandbox goes.
func pod(obj any) (string, event.Value) {
	p := obj.(*corev1.Pod)
	name := namespacedName(p)
	finished := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	if p.Spec.HostNetwork || finished {
		return name, nil
	}
	v := &event.Pod{Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName, Labels: selector.MakeLabels(p.Labels)}
	for _, ip := range p.Status.PodIPs {
		v.Addrs = appendAddr(v.Addrs, ip.IP)
	}
	return name, v
}

func appendAddr(addrs []netip.Addr, text string) []netip.Addr {
	if a, err := netip.ParseAddr(text); err == nil {
		addrs = append(addrs, a.Unmap())
	}
	return addrs
}

func networkPolicy(obj any) (string, event.Value) {
	np := obj.(*networkingv1.NetworkPolicy)
	p, _ := convert.NetworkPolicy(np)
	return policy.Key{Kind: policy.KubernetesNetworkPolicy, Namespace: np.Namespace, Name: np.Name}.String(), &event.Policy{Policy: p}
}

func pool(obj any) (string, event.Value) {
	o := obj.(*koratv1.IPPool)
	cidr, err := netip.ParsePrefix(string(o.Spec.CIDR))
	if err != nil {
		return o.Name, nil
	}
	v := &event.Pool{Pool: ipam.Pool{Name: o.Name, CIDR: cidr.Masked(), BlockSize: int(o.Spec.BlockSize), Disabled: o.Spec.Disabled}}
	if v.BlockSize == 0 {
		v.BlockSize = koratv1.DefaultBlockSize(cidr)
	}
	if v.Nodes, err = selector.Parse(o.Spec.NodeSelector); err != nil {
		v.Disabled = true // the range stays known; nothing new is handed out of it
	}
	return o.Name, v
}

func block(obj any) (string, event.Value) {
	o := obj.(*koratv1.Block)
	cidr, err := netip.ParsePrefix(string(o.Spec.CIDR))
	if err != nil || koratv1.BlockName(cidr) != o.Name {
		return o.Name, nil
	}
	return o.Name, &event.Block{Block: ipam.Block{
		CIDR: cidr, Pool: o.Spec.Pool,
		Owner: ipam.Owner{Node: o.Spec.Node, UID: o.Spec.NodeUID, Journal: o.Spec.JournalID},
	}}
}

func nodeNetwork(obj any) (string, event.Value) {
	o := obj.(*koratv1.NodeNetwork)
	return o.Name, &event.NodeNetwork{Name: o.Name, ASN: uint32(o.Spec.ASNumber)}
}

func bgpPeer(obj any) (string, event.Value) {
	o := obj.(*koratv1.BGPPeer)
	nodes, errSel := selector.Parse(o.Spec.NodeSelector)
	addr, errAddr := netip.ParseAddr(o.Spec.Address)
	if errSel != nil || errAddr != nil {
		return o.Name, nil // no session rather than one with a neighbour nobody named
	}
	v := &event.Peer{
		Name: o.Name, Nodes: nodes, Addr: addr.Unmap(), Port: uint16(o.Spec.Port), ASN: uint32(o.Spec.ASNumber),
		Hold: duration(o.Spec.HoldTime, koratv1.DefaultHoldTime),
	}
	v.Keepalive = duration(o.Spec.KeepaliveTime, v.Hold/3)
	for _, a := range o.Spec.Advertise {
		switch a {
		case koratv1.AdvertiseBlocks:
			v.Advertise |= bgp.Blocks
		case koratv1.AdvertiseHosts:
			v.Advertise |= bgp.Hosts
		}
	}
	return o.Name, v
}

// bgpDefaults hold while there is no BGPConfiguration. The schema gives an object
// that leaves fields out the same values.
var bgpDefaults = &event.BGP{
	ASN: uint32(koratv1.DefaultASNumber), Mesh: true, ListenPort: koratv1.DefaultBGPPort, RestartTime: koratv1.DefaultRestartTime,
}

func bgpConfiguration(obj any) (string, event.Value) {
	o := obj.(*koratv1.BGPConfiguration)
	if o.Name != koratv1.BGPConfigurationName {
		return o.Name, nil
	}
	return o.Name, &event.BGP{
		ASN: uint32(o.Spec.ASNumber), Mesh: o.Spec.NodeToNodeMesh != koratv1.MeshDisabled,
		ListenPort: uint16(o.Spec.ListenPort), RestartTime: duration(o.Spec.GracefulRestart.RestartTime, koratv1.DefaultRestartTime),
	}
}

func duration(d *metav1.Duration, unset time.Duration) time.Duration {
	if d == nil {
		return unset
	}
	return d.Duration
}
