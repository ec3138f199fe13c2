package watch

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/event"
)

func TestItem77BackendsByTheirConditions(t *testing.T) {
	yes, no := ptr(true), ptr(false)
	for name, c := range map[string]struct {
		conditions discoveryv1.EndpointConditions
		want       event.Backend
	}{
		"nothing said is ready": {discoveryv1.EndpointConditions{}, event.Backend{Ready: true}},
		"ready":                 {discoveryv1.EndpointConditions{Ready: yes, Serving: yes, Terminating: no}, event.Backend{Ready: true}},
		"not ready":             {discoveryv1.EndpointConditions{Ready: no, Serving: no}, event.Backend{}},
		"not ready, and whether it serves is not said": {discoveryv1.EndpointConditions{Ready: no, Terminating: yes}, event.Backend{}},
		"terminating and serving":                      {discoveryv1.EndpointConditions{Ready: no, Serving: yes, Terminating: yes}, event.Backend{Ending: true}},
		"terminating and not serving":                  {discoveryv1.EndpointConditions{Ready: no, Serving: no, Terminating: yes}, event.Backend{}},
		"published before it is ready, ends":           {discoveryv1.EndpointConditions{Ready: yes, Serving: no, Terminating: yes}, event.Backend{Ending: true}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{{NodeName: ptr("a"), Conditions: c.conditions}}}
			c.want.Node = "a"
			if diff := cmp.Diff([]event.Backend{c.want}, backends(s)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestBackendsAreSummedUpByNode(t *testing.T) {
	yes, no := ptr(true), ptr(false)
	end := func(node *string, ready, ends *bool) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{NodeName: node, Conditions: discoveryv1.EndpointConditions{Ready: ready, Serving: yes, Terminating: ends}}
	}
	s := &discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{
		end(ptr("b"), no, yes), end(ptr("a"), no, no), end(nil, yes, no), end(ptr("b"), yes, no), end(ptr("a"), no, yes),
	}}
	want := []event.Backend{{Node: "", Ready: true}, {Node: "a", Ending: true}, {Node: "b", Ready: true, Ending: true}}
	if diff := cmp.Diff(want, backends(s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestServicesByTheirAddresses(t *testing.T) {
	local, localInside := corev1.ServiceExternalTrafficPolicyLocal, corev1.ServiceInternalTrafficPolicyLocal
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"},
		Spec: corev1.ServiceSpec{
			ClusterIPs: []string{"10.96.0.1", "fd00::1"}, ExternalIPs: []string{"192.0.2.1"},
			ExternalTrafficPolicy: local, InternalTrafficPolicy: &localInside,
		},
		Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{
			{IP: "198.51.100.1"},
			{IP: "198.51.100.2", IPMode: ptr(corev1.LoadBalancerIPModeVIP)},
			{IP: "198.51.100.3", IPMode: ptr(corev1.LoadBalancerIPModeProxy)},
			{Hostname: "lb.example.com"},
		}}},
	}
	name, v := service(s)
	want := &event.Service{InternalLocal: true, ExternalLocal: true}
	want.Namespace, want.Name = "ns", "web"
	want.ClusterIPs = appendAddr(appendAddr(nil, "10.96.0.1"), "fd00::1")
	want.ExternalIPs = appendAddr(nil, "192.0.2.1")
	want.LoadBalancerIPs = appendAddr(appendAddr(nil, "198.51.100.1"), "198.51.100.2")
	if diff := cmp.Diff(want, v, byValue); name != "ns/web" || diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
	for what, spec := range map[string]corev1.ServiceSpec{
		"headless": {ClusterIP: corev1.ClusterIPNone, ClusterIPs: []string{corev1.ClusterIPNone}},
		"a name":   {Type: corev1.ServiceTypeExternalName, ExternalName: "example.com", ExternalIPs: []string{"192.0.2.1"}},
	} {
		if _, v := service(&corev1.Service{Spec: spec}); v != nil {
			t.Errorf("a service that is %s has %+v", what, v)
		}
	}
}

func TestRangesOfServices(t *testing.T) {
	got := serviceRanges(&koratv1.BGPConfigurationSpec{
		ServiceClusterIPs: []koratv1.ServiceRange{{CIDR: "10.96.0.0/12"}, {CIDR: "fd00::/112", Aggregation: koratv1.SwitchDisabled}},
	})
	want := []event.ServiceRange{{CIDR: prefixesOf([]koratv1.CIDR{"10.96.0.0/12"})[0], Aggregate: true}, {CIDR: prefixesOf([]koratv1.CIDR{"fd00::/112"})[0]}}
	if diff := cmp.Diff(want, got.ClusterIPs, byValue); diff != "" || got.ExternalIPs != nil {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
