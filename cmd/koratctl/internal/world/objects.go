package world

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/cmd/koratctl/internal/manifest"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/convert"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/selector"
)

func (w *World) addNamespace(n *corev1.Namespace) []convert.Problem {
	labels := map[string]string{corev1.LabelMetadataName: n.Name} // as the API server does
	for k, v := range n.Labels {
		labels[k] = v
	}
	w.Cluster.Namespaces[n.Name] = selector.MakeLabels(labels)
	return nil
}

// impliedNamespace makes a namespace that no object describes.
func (w *World) impliedNamespace(name string) {
	if _, ok := w.Cluster.Namespaces[name]; !ok {
		w.addNamespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
}

func (w *World) addAccount(a *corev1.ServiceAccount) []convert.Problem {
	w.Cluster.Accounts[policy.ServiceName{Namespace: a.Namespace, Name: a.Name}] = selector.MakeLabels(a.Labels)
	return nil
}

func (w *World) addNode(n *corev1.Node) []convert.Problem {
	node := eval.Node{Name: n.Name, Labels: selector.MakeLabels(n.Labels)}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			node.Addrs = appendAddr(node.Addrs, a.Address)
		}
	}
	w.Cluster.Nodes = append(w.Cluster.Nodes, node)
	return nil
}

func (w *World) addPod(p *corev1.Pod) []convert.Problem {
	name := p.Namespace + "/" + p.Name
	switch {
	case p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
		w.NoEndpoints[name] = NoEndpoint{Why: "has finished"}
		return nil
	case p.Spec.HostNetwork:
		w.NoEndpoints[name] = NoEndpoint{Why: "is on the host network", Node: p.Spec.NodeName}
		return nil
	}
	pod := eval.Pod{
		Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName,
		Labels: selector.MakeLabels(p.Labels), Account: p.Spec.ServiceAccountName, Ports: namedPorts(&p.Spec),
	}
	if pod.Account == "" {
		pod.Account = "default"
	}
	for _, ip := range p.Status.PodIPs {
		pod.Addrs = appendAddr(pod.Addrs, ip.IP)
	}
	if len(pod.Addrs) == 0 {
		pod.Addrs = appendAddr(nil, p.Status.PodIP)
	}
	w.Cluster.Pods = append(w.Cluster.Pods, pod)
	return nil
}

// namedPorts lists the ports that containers give names to. Init containers
// count, as sidecars are some.
func namedPorts(spec *corev1.PodSpec) []policy.NamedPort {
	var ports []policy.NamedPort
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, p := range c.Ports {
			if p.Name != "" {
				ports = append(ports, policy.NamedPort{Name: p.Name, Protocol: protocolOf(p.Protocol), Port: uint16(p.ContainerPort)})
			}
		}
	}
	return ports
}

// addWorkload makes one pod of the template, with the name of the workload.
func (w *World) addWorkload(o manifest.Object) []convert.Problem {
	type workload struct {
		Spec struct {
			Template    *corev1.PodTemplateSpec `json:"template"`
			JobTemplate struct {
				Spec struct {
					Template *corev1.PodTemplateSpec `json:"template"`
				} `json:"spec"`
			} `json:"jobTemplate"`
		} `json:"spec"`
	}
	var obj workload
	if err := json.UnmarshalCaseSensitivePreserveInts(o.JSON, &obj); err != nil {
		return []convert.Problem{{Field: "spec.template", Expected: "a pod's template, but " + err.Error(), Effect: "the object is left out"}}
	}
	t := obj.Spec.Template
	if t == nil {
		t = obj.Spec.JobTemplate.Spec.Template
	}
	if t == nil {
		return []convert.Problem{{Field: "spec.template", Expected: "a pod's template", Effect: "the object is left out"}}
	}
	pod := &corev1.Pod{ObjectMeta: t.ObjectMeta, Spec: t.Spec}
	pod.Namespace, pod.Name = o.Namespace, o.Name
	w.written["Pod "+o.Namespace+"/"+o.Name] = true
	return w.addPod(pod)
}

// serviceSelector is a Service of a manifest whose endpoints nobody worked out.
type serviceSelector struct {
	name  policy.ServiceName
	pods  selector.Labels
	ports []corev1.ServicePort
}

func (w *World) addService(s *corev1.Service) []convert.Problem {
	name := policy.ServiceName{Namespace: s.Namespace, Name: s.Name}
	for _, text := range append(s.Spec.ClusterIPs, s.Spec.ClusterIP) {
		for _, a := range appendAddr(nil, text) {
			w.Services[a] = name.String()
		}
	}
	if len(s.Spec.Selector) > 0 && w.written["Service "+name.String()] {
		w.selects = append(w.selects, serviceSelector{name, selector.MakeLabels(s.Spec.Selector), s.Spec.Ports})
	}
	return nil
}

// addSlice adds endpoints of a Service, ready or not. Without ports they are
// only known by their addresses.
func (w *World) addSlice(s *discoveryv1.EndpointSlice) []convert.Problem {
	name := s.Labels[discoveryv1.LabelServiceName]
	if name == "" {
		return nil
	}
	service := eval.Service{ServiceName: policy.ServiceName{Namespace: s.Namespace, Name: name}}
	for _, e := range s.Endpoints {
		for _, text := range e.Addresses {
			for _, a := range appendAddr(nil, text) {
				service.Ends = append(service.Ends, eval.ServiceEnd{Addr: a})
				for _, p := range s.Ports {
					end := eval.ServiceEnd{Addr: a, Protocol: policy.TCP}
					if p.Protocol != nil {
						end.Protocol = protocolOf(*p.Protocol)
					}
					if p.Port != nil {
						end.Port = uint16(*p.Port)
					}
					service.Ends = append(service.Ends, end)
				}
			}
		}
	}
	w.Cluster.Services = append(w.Cluster.Services, service)
	return nil
}

func (w *World) addTier(t *koratv1.Tier) []convert.Problem {
	tier, problems := convert.Tier(t)
	w.Cluster.Tiers[t.Name] = tier
	return problems
}

func (w *World) addNetworkSet(s *koratv1.NetworkSet) []convert.Problem {
	set, problems := convert.NetworkSet(s)
	w.Cluster.NetworkSets = append(w.Cluster.NetworkSets, set)
	return problems
}

func (w *World) addGlobalNetworkSet(s *koratv1.GlobalNetworkSet) []convert.Problem {
	set, problems := convert.GlobalNetworkSet(s)
	w.Cluster.NetworkSets = append(w.Cluster.NetworkSets, set)
	return problems
}

func (w *World) addHostEndpoint(h *koratv1.HostEndpoint) []convert.Problem {
	endpoint, problems := convert.HostEndpoint(h)
	w.Cluster.HostEndpoints = append(w.Cluster.HostEndpoints, endpoint)
	return problems
}

func protocolOf(p corev1.Protocol) policy.Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return policy.UDP
	case corev1.ProtocolSCTP:
		return policy.SCTP
	}
	return policy.TCP
}

func appendAddr(addrs []netip.Addr, text string) []netip.Addr {
	if a, err := netip.ParseAddr(text); err == nil {
		addrs = append(addrs, a.Unmap())
	}
	return addrs
}
