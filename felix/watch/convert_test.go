package watch

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
)

var byValue = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func ptr[V any](v V) *V { return &v }

func TestItem37EveryContainerGivesNamesToPorts(t *testing.T) {
	p := aPod("a", corev1.PodRunning)
	port := func(name string, protocol corev1.Protocol, number int32) []corev1.ContainerPort {
		return []corev1.ContainerPort{{Name: name, Protocol: protocol, ContainerPort: number}}
	}
	p.Spec = corev1.PodSpec{
		ServiceAccountName: "builder",
		InitContainers:     []corev1.Container{{Ports: port("metrics", "", 9090)}},
		Containers: []corev1.Container{
			{Ports: port("http", corev1.ProtocolTCP, 80)},
			{Ports: port("http", corev1.ProtocolTCP, 8080)},
			{Ports: port("dns", corev1.ProtocolUDP, 53)},
			{Ports: port("", corev1.ProtocolTCP, 1)},
			{Ports: port("odd", "QUIC", 443)},
		},
	}
	name, v := pod(p)
	want := &event.Pod{Namespace: "ns", Name: "a", Account: "builder", Ports: []policy.NamedPort{
		{Name: "metrics", Protocol: policy.TCP, Port: 9090},
		{Name: "http", Protocol: policy.TCP, Port: 80},
		{Name: "http", Protocol: policy.TCP, Port: 8080},
		{Name: "dns", Protocol: policy.UDP, Port: 53},
	}}
	if diff := cmp.Diff(want, v, byValue); name != "ns/a" || diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestItem56EndpointsThatAreNotReadyCount(t *testing.T) {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "ns", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr(true)}},
			{Addresses: []string{"10.0.0.2"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr(false), Serving: ptr(false)}},
		},
		Ports: []discoveryv1.EndpointPort{
			{Name: ptr("http"), Port: ptr[int32](8080)},
			{Port: ptr[int32](53), Protocol: ptr(corev1.ProtocolUDP)},
			{Name: ptr("all")},
		},
	}
	name, v := endpointSlice(slice)
	want := &event.EndpointSlice{
		Service: policy.ServiceName{Namespace: "ns", Name: "web"},
		Addrs:   []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")},
		Ports:   []policy.NamedPort{{Name: "http", Protocol: policy.TCP, Port: 8080}, {Protocol: policy.UDP, Port: 53}},

		Backends: []event.Backend{{Ready: true}},
	}
	if diff := cmp.Diff(want, v, byValue); name != "ns/web-1" || diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
	slice.Labels = nil
	if _, v := endpointSlice(slice); v != nil {
		t.Errorf("a slice of no service is %+v, want nothing", v)
	}
}

func TestItem54NodesHaveAllTheirAddresses(t *testing.T) {
	_, v := node(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: "172.16.0.1"},
		{Type: corev1.NodeExternalIP, Address: "203.0.113.1"},
		{Type: corev1.NodeHostName, Address: "n"},
	}}})
	want := &event.Node{Name: "n", Addrs: []netip.Addr{netip.MustParseAddr("172.16.0.1")}, Others: []netip.Addr{netip.MustParseAddr("203.0.113.1")}}
	if diff := cmp.Diff(want, v, byValue); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAStaticPodHasTheUIDThatItsRuntimeIsTold(t *testing.T) {
	const object, hash = "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "0123456789abcdef0123456789abcdef"
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: object}}
	if got := podUID(p); got != event.ParseUID(object) || got == (event.UID{}) {
		t.Errorf("got %x", got)
	}
	p.Annotations = map[string]string{"kubernetes.io/config.hash": hash}
	if got := podUID(p); got != event.ParseUID(hash) {
		t.Errorf("got %x of a static pod", got)
	}
}
