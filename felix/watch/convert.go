package watch

import (
	"math"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/annotation"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/convert"
	"github.com/koratnet/korat/policy/selector"

	ipamkube "github.com/koratnet/korat/ipam/kube"
)

// The converters parse once into strict values. What an object says wrongly is
// told to its author by `korat controller`; here it becomes its closed reading.

func namespacedName(o metav1.Object) string { return o.GetNamespace() + "/" + o.GetName() }

func namespace(obj any) (string, event.Value) {
	n := obj.(*corev1.Namespace)
	return n.Name, &event.Namespace{Name: n.Name, Labels: selector.MakeLabels(n.Labels), Annotations: annotation.Ours(n.Annotations)}
}

func node(obj any) (string, event.Value) {
	n := obj.(*corev1.Node)
	v := &event.Node{
		Name: n.Name, UID: string(n.UID), Labels: selector.MakeLabels(n.Labels),
		Draining: n.Annotations[koratv1.DrainAnnotation] == "true", Cordoned: n.Spec.Unschedulable,
	}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			v.Addrs = appendAddr(v.Addrs, a.Address)
		} else {
			v.Others = appendAddr(v.Others, a.Address) // host names do not parse
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
	v := &event.Pod{
		Namespace: p.Namespace, Name: p.Name, UID: podUID(p), Node: p.Spec.NodeName, Labels: selector.MakeLabels(p.Labels),
		Account: p.Spec.ServiceAccountName, Ports: slices.Concat(namedPorts(p.Spec.InitContainers), namedPorts(p.Spec.Containers)),
		Annotations: annotation.Ours(p.Annotations),
	}
	for _, ip := range p.Status.PodIPs {
		v.Addrs = appendAddr(v.Addrs, ip.IP)
	}
	// What cannot be read fails the pod's ADD.
	if w, _ := annotation.Parse(v.Annotations, nil); len(w.Floating) > 0 {
		v.Floating = &event.Floating{Addrs: w.Floating, Created: p.CreationTimestamp.Unix()}
	}
	return name, v
}

// podUID returns the UID by which the kubelet knows a pod. For a static pod that is
// a hash of its file; the object that shows it in the API has another.
func podUID(p *corev1.Pod) event.UID {
	if hash, static := p.Annotations["kubernetes.io/config.hash"]; static {
		return event.ParseUID(hash)
	}
	return event.ParseUID(string(p.UID))
}

func appendAddr(addrs []netip.Addr, text string) []netip.Addr {
	if a, err := netip.ParseAddr(text); err == nil {
		addrs = append(addrs, a.Unmap())
	}
	return addrs
}

// namedPorts: init containers count, as sidecars are some.
func namedPorts(containers []corev1.Container) []policy.NamedPort {
	var ports []policy.NamedPort
	for _, c := range containers {
		for _, p := range c.Ports {
			protocol, number := protocolOf(p.Protocol), p.ContainerPort
			if p.Name != "" && protocol.HasPorts() && number > 0 && number <= math.MaxUint16 {
				ports = append(ports, policy.NamedPort{Name: p.Name, Protocol: protocol, Port: uint16(number)})
			}
		}
	}
	return ports
}

// protocolOf returns AnyProtocol, which has no ports, for a name from the future.
func protocolOf(p corev1.Protocol) policy.Protocol {
	switch p {
	case "", corev1.ProtocolTCP:
		return policy.TCP
	case corev1.ProtocolUDP:
		return policy.UDP
	case corev1.ProtocolSCTP:
		return policy.SCTP
	}
	return policy.AnyProtocol
}

func serviceAccount(obj any) (string, event.Value) {
	a := obj.(*corev1.ServiceAccount)
	return namespacedName(a), &event.ServiceAccount{Namespace: a.Namespace, Name: a.Name, Labels: selector.MakeLabels(a.Labels)}
}

// endpointSlice: policy does not ask whether endpoints are ready, or it would
// close and open with every probe. What announces services does.
func endpointSlice(obj any) (string, event.Value) {
	s := obj.(*discoveryv1.EndpointSlice)
	service := s.Labels[discoveryv1.LabelServiceName]
	if service == "" || s.AddressType == discoveryv1.AddressTypeFQDN {
		return namespacedName(s), nil
	}
	v := &event.EndpointSlice{Service: policy.ServiceName{Namespace: s.Namespace, Name: service}}
	for _, e := range s.Endpoints {
		for _, a := range e.Addresses {
			v.Addrs = appendAddr(v.Addrs, a)
		}
	}
	v.Backends = backends(s)
	for _, p := range s.Ports {
		port := policy.NamedPort{Protocol: policy.TCP}
		if p.Name != nil {
			port.Name = *p.Name
		}
		if p.Protocol != nil {
			port.Protocol = protocolOf(*p.Protocol)
		}
		if p.Port != nil && *p.Port > 0 && *p.Port <= math.MaxUint16 && port.Protocol.HasPorts() {
			port.Port = uint16(*p.Port)
			v.Ports = append(v.Ports, port)
		}
	}
	return namespacedName(s), v
}

func tier(obj any) (string, event.Value) {
	t, _ := convert.Tier(obj.(*koratv1.Tier))
	return t.Name, &event.Tier{Tier: t}
}

func networkSet(obj any) (string, event.Value) {
	o := obj.(*koratv1.NetworkSet)
	s, _ := convert.NetworkSet(o)
	return namespacedName(o), &event.NetworkSet{NetworkSet: s}
}

func globalNetworkSet(obj any) (string, event.Value) {
	s, _ := convert.GlobalNetworkSet(obj.(*koratv1.GlobalNetworkSet))
	return s.Name, &event.NetworkSet{NetworkSet: s}
}

func hostEndpoint(obj any) (string, event.Value) {
	h, _ := convert.HostEndpoint(obj.(*koratv1.HostEndpoint))
	return h.Name, &event.HostEndpoint{HostEndpoint: h}
}

// policyOf makes the converter of a kind of policy. Problems are told to the
// author elsewhere; here the policy has its closed reading.
func policyOf[O any](converted func(O) (*policy.Policy, []convert.Problem)) func(any) (string, event.Value) {
	return func(obj any) (string, event.Value) {
		p, _ := converted(obj.(O))
		return p.Key.String(), &event.Policy{Policy: p}
	}
}

// pool: one that is being deleted gives nothing out any more, and neither does one
// of which nobody can tell for whom it is.
func pool(obj any) (string, event.Value) {
	o := obj.(*koratv1.IPPool)
	cidr, err := netip.ParsePrefix(string(o.Spec.CIDR))
	if err != nil {
		return o.Name, nil
	}
	v := &event.Pool{Masquerade: o.Spec.NATOutgoing, Silent: o.Spec.Announce == koratv1.SwitchDisabled, Modes: poolModes(o), Encrypted: poolEncrypted(o.Spec.Encryption), Deleting: o.DeletionTimestamp != nil, Pool: ipam.Pool{
		Name: o.Name, CIDR: cidr.Masked(), BlockSize: int(o.Spec.BlockSize), MaxBlocks: int(o.Spec.MaxBlocksPerNode),
		Disabled: o.Spec.Disabled || o.DeletionTimestamp != nil, Manual: o.Spec.Assignment == koratv1.AssignManual,
	}}
	if v.BlockSize == 0 {
		v.BlockSize = koratv1.DefaultBlockSize(cidr)
	}
	if o.Spec.Cooldown != nil {
		v.Cooldown = o.Spec.Cooldown.Duration
	}
	for _, u := range o.Spec.AllowedUses {
		v.Uses |= poolUses[u]
	}
	nodes, errNodes := selector.Parse(o.Spec.NodeSelector)
	namespaces, errNamespaces := selector.Parse(o.Spec.NamespaceSelector)
	v.Nodes = nodes
	if o.Spec.NamespaceSelector != "" {
		v.Namespaces = namespaces
	}
	if errNodes != nil || errNamespaces != nil {
		// The range stays known; nothing new is handed out of it.
		v.Disabled, v.Namespaces = true, selector.Not(selector.All())
	}
	return o.Name, v
}

var poolUses = map[koratv1.PoolUse]ipam.Use{
	koratv1.UsePods: ipam.Pods, koratv1.UseTunnel: ipam.Tunnel, koratv1.UseLoadBalancer: ipam.LoadBalancer, koratv1.UseFloating: ipam.Floating,
}

func reservation(obj any) (string, event.Value) {
	o := obj.(*koratv1.IPReservation)
	v := &event.Reservation{Name: o.Name}
	for _, c := range o.Spec.CIDRs {
		if p, err := netip.ParsePrefix(string(c)); err == nil {
			v.Nets = append(v.Nets, p.Masked())
		}
	}
	return o.Name, v
}

func block(obj any) (string, event.Value) {
	o := obj.(*koratv1.Block)
	cidr, err := netip.ParsePrefix(string(o.Spec.CIDR))
	if err != nil || koratv1.BlockName(cidr) != o.Name {
		return o.Name, nil
	}
	return o.Name, &event.Block{Standing: ipamkube.Standing(o), Block: ipam.Block{
		CIDR: cidr, Pool: o.Spec.Pool,
		Owner: ipam.Owner{Node: o.Spec.Node, UID: o.Spec.NodeUID, Journal: o.Spec.JournalID},
	}}
}
