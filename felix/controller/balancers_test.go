package controller

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/annotation"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/policy/selector"
)

func balancer(name, class string, families ...corev1.IPFamily) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: types.UID(name), ResourceVersion: "1", CreationTimestamp: metav1.Unix(1, 0)},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, IPFamilies: families},
	}
	if class != "" {
		s.Spec.LoadBalancerClass = &class
	}
	return s
}

func balancerPools(t *testing.T, pools ...*koratv1.IPPool) (out []ipam.Pool) {
	t.Helper()
	var all []koratv1.IPPool
	for i, p := range pools {
		p.CreationTimestamp = metav1.NewTime(time.Unix(int64(i), 0))
		all = append(all, *p)
	}
	for i := range all {
		if p, ok := balancerPool(&all[i], all); ok {
			out = append(out, p)
		}
	}
	return out
}

func lbPool(name, cidr string, uses ...koratv1.PoolUse) *koratv1.IPPool {
	return &koratv1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: koratv1.IPPoolSpec{CIDR: koratv1.CIDR(cidr), AllowedUses: uses}}
}

// told describes what a decision writes: addresses, and the reason.
func told(d decision) string {
	var words []string
	for _, in := range d.ingress {
		words = append(words, in.IP)
	}
	if c := meta.FindStatusCondition(d.conditions, koratv1.ConditionAddressAssigned); c != nil {
		words = append(words, c.Reason)
	}
	return strings.Join(words, " ")
}

func TestWhichServicesGetAddresses(t *testing.T) {
	pools := balancerPools(t, lbPool("lb", "192.0.2.0/24", koratv1.UseLoadBalancer), lbPool("lb6", "2001:db8::/64", koratv1.UseLoadBalancer))
	other := balancer("other", "example.com/lb", corev1.IPv4Protocol)
	unclassed := balancer("unclassed", "", corev1.IPv4Protocol)
	dual := balancer("dual", koratv1.LoadBalancerClass, corev1.IPv6Protocol, corev1.IPv4Protocol)
	asks := balancer("asks", koratv1.LoadBalancerClass, corev1.IPv4Protocol)
	asks.Annotations = map[string]string{annotation.LoadBalancerIPs: "192.0.2.9"}
	old := balancer("old", koratv1.LoadBalancerClass, corev1.IPv4Protocol)
	old.Spec.LoadBalancerIP = "192.0.2.10"
	wrong := balancer("wrong", koratv1.LoadBalancerClass, corev1.IPv4Protocol)
	wrong.Annotations = map[string]string{annotation.LoadBalancerIPs: "192.0.2.300"}
	family := balancer("family", koratv1.LoadBalancerClass, corev1.IPv4Protocol)
	family.Annotations = map[string]string{annotation.LoadBalancerIPs: "2001:db8::9"}
	internal := balancer("internal", koratv1.LoadBalancerClass, corev1.IPv4Protocol)
	internal.Spec.Type = corev1.ServiceTypeClusterIP
	for name, c := range map[string]struct {
		service *corev1.Service
		all     bool
		want    string // empty: nothing is written
	}{
		"of another class":                         {other, true, ""},
		"of no class":                              {unclassed, false, ""},
		"of no class, if that is asked for":        {unclassed, true, "192.0.2.0 Assigned"},
		"of no load balancer":                      {internal, true, ""},
		"of both families in the service's order":  {dual, false, "2001:db8:: 192.0.2.0 Assigned"},
		"asked for by annotation":                  {asks, false, "192.0.2.9 Assigned"},
		"asked for by the field that was before":   {old, false, "192.0.2.10 Assigned"},
		"asked for in words that mean nothing":     {wrong, false, "Invalid"},
		"asked for of a family that is not wanted": {family, false, "192.0.2.0 Invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &balancerWorld{pools: pools, all: c.all, namespaces: map[string]selector.Labels{"a": nil}}
			got := ""
			for _, d := range w.decide([]*corev1.Service{c.service}) {
				got += told(d)
			}
			if got != c.want {
				t.Errorf("told %q, want %q", got, c.want)
			}
		})
	}
}

func TestPoolsOfServices(t *testing.T) {
	for name, c := range map[string]struct {
		pools []*koratv1.IPPool
		want  string
	}{
		"for services alone":                          {[]*koratv1.IPPool{lbPool("lb", "192.0.2.0/24", koratv1.UseLoadBalancer)}, "192.0.2.0 Assigned"},
		"for pods too, whose nodes take blocks of it": {[]*koratv1.IPPool{lbPool("lb", "192.0.2.0/24", koratv1.UseLoadBalancer, koratv1.UsePods)}, "NoPool"},
		"for pods": {[]*koratv1.IPPool{lbPool("lb", "192.0.2.0/24")}, "NoPool"},
		"inside of an older pool, whose addresses are": {[]*koratv1.IPPool{lbPool("pods", "192.0.0.0/16"), lbPool("lb", "192.0.2.0/24", koratv1.UseLoadBalancer)}, "NoPool"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &balancerWorld{pools: balancerPools(t, c.pools...), namespaces: map[string]selector.Labels{"a": nil}}
			d := w.decide([]*corev1.Service{balancer("x", koratv1.LoadBalancerClass, corev1.IPv4Protocol)})
			if len(d) != 1 || told(d[0]) != c.want {
				t.Errorf("told %+v, want %q", d, c.want)
			}
		})
	}
}

// TestWhatWasGivenIsTakenBack: from a service that is not ours any more, and from no
// other. What is in a status already is not written again.
func TestWhatWasGivenIsTakenBack(t *testing.T) {
	w := &balancerWorld{pools: balancerPools(t, lbPool("lb", "192.0.2.0/24", koratv1.UseLoadBalancer)), namespaces: map[string]selector.Labels{"a": nil}, all: true}
	s := balancer("x", "", corev1.IPv4Protocol)
	d := w.decide([]*corev1.Service{s})
	s.Status.LoadBalancer.Ingress, s.Status.Conditions = d[0].ingress, d[0].conditions
	if again := w.decide([]*corev1.Service{s}); len(again) > 0 {
		t.Errorf("decided again: %+v", again)
	}
	theirs := balancer("theirs", "", corev1.IPv4Protocol)
	theirs.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "198.51.100.1"}}
	w.all = false
	if d = w.decide([]*corev1.Service{s, theirs}); len(d) != 1 || d[0].service != s || told(d[0]) != "" {
		t.Errorf("taken back: %+v", d)
	}
}

// TestACacheThatIsBehindGivesNothingTwice: what was written counts until the cache
// has another version of the service.
func TestACacheThatIsBehindGivesNothingTwice(t *testing.T) {
	w := &balancerWorld{pools: balancerPools(t, lbPool("lb", "192.0.2.0/31", koratv1.UseLoadBalancer)), namespaces: map[string]selector.Labels{"a": nil}}
	x, y := balancer("x", koratv1.LoadBalancerClass, corev1.IPv4Protocol), balancer("a", koratv1.LoadBalancerClass, corev1.IPv4Protocol)
	d := w.decide([]*corev1.Service{x})
	b := &balancers{written: map[types.UID]writtenStatus{x.UID: {x.ResourceVersion, corev1.ServiceStatus{
		LoadBalancer: corev1.LoadBalancerStatus{Ingress: d[0].ingress}, Conditions: d[0].conditions,
	}}}}
	cached := []corev1.Service{*x, *y} // y goes first by its name
	d = w.decide(b.current(cached))
	if len(d) != 1 || d[0].service.Name != "a" || told(d[0]) != "192.0.2.1 Assigned" {
		t.Errorf("decided %+v, expected the second address for the new service alone", d)
	}
	cached[0].ResourceVersion = "2" // somebody took the address away
	if d = w.decide(b.current(cached)); len(d) != 2 {
		t.Errorf("decided %+v, expected both to be decided", d)
	}
	if b.current(nil); len(b.written) > 0 {
		t.Errorf("services that are gone are remembered: %v", b.written)
	}
}

func TestServicesKeepTheirAnnotationsInTheCache(t *testing.T) {
	s := balancer("x", "", corev1.IPv4Protocol)
	s.Annotations = map[string]string{annotation.LoadBalancerIPs: "192.0.2.9", "example.com/other": "long"}
	if _, err := slim(s); err != nil || !slices.Equal(mapKeys(s.Annotations), []string{annotation.LoadBalancerIPs}) {
		t.Errorf("annotations %v (%v)", s.Annotations, err)
	}
}

func mapKeys(m map[string]string) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}
