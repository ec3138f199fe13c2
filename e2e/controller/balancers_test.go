package controller

import (
	"context"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/annotation"
)

func loadBalancer(name string) *corev1.Service {
	class := koratv1.LoadBalancerClass
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, LoadBalancerClass: &class, Ports: []corev1.ServicePort{{Port: 80}}},
	}
}

func servicePool(name, cidr string) *koratv1.IPPool {
	size := int32(32)
	return &koratv1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: koratv1.IPPoolSpec{
		CIDR: koratv1.CIDR(cidr), BlockSize: size, AllowedUses: []koratv1.PoolUse{koratv1.UseLoadBalancer},
	}}
}

// addressOf waits until a service has an address, and returns it.
func addressOf(t *testing.T, s *corev1.Service) (address string) {
	t.Helper()
	within(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(s), s); err != nil {
			return err
		}
		if in := s.Status.LoadBalancer.Ingress; len(in) == 1 {
			address = in[0].IP
			return nil
		}
		return fmt.Errorf("service %s has %v", s.Name, s.Status.LoadBalancer.Ingress)
	})
	return address
}

// TestServicesGetAddressesEachItsOwn makes more services than there are addresses,
// over a change of the leader, and then lets one go.
func TestServicesGetAddressesEachItsOwn(t *testing.T) {
	stop, _ := run(t)
	create(t, servicePool("balancers", "192.0.2.16/28"))
	var all []*corev1.Service
	for i := range 16 {
		s := loadBalancer(fmt.Sprint("lb-", i))
		create(t, s)
		if all = append(all, s); i == 7 {
			stop()
			run(t)
		}
	}
	var got []string
	for _, s := range all {
		got = append(got, addressOf(t, s))
	}
	slices.Sort(got)
	if len(slices.Compact(slices.Clone(got))) != 16 {
		t.Errorf("an address is given twice: %v", got)
	}
	late := loadBalancer("lb-late")
	create(t, late)
	says(t, late, &late.Status.Conditions, koratv1.ConditionAddressAssigned, "False Exhausted: every address of the IPPools balancers is in use")
	within(t, func(ctx context.Context) error {
		var events corev1.EventList
		if err := admin.List(ctx, &events, client.InNamespace("default")); err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.InvolvedObject.Name == "lb-late" && e.Reason == "Exhausted" {
				return nil
			}
		}
		return fmt.Errorf("no Event about lb-late")
	})
	freed := all[3].Status.LoadBalancer.Ingress[0].IP
	remove(t, all[3])
	if a := addressOf(t, late); a != freed {
		t.Errorf("the late service has %s, expected %s, which was freed", a, freed)
	}
	var pool koratv1.IPPool
	within(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKey{Name: "balancers"}, &pool); err != nil {
			return err
		}
		if pool.Status.Used != "16/16" {
			return fmt.Errorf("the pool tells of %s addresses in use, expected 16/16", pool.Status.Used)
		}
		return nil
	})
}

// TestAServiceMovesWithWhatItAsksFor: to another address, and away from Korat.
func TestAServiceMovesWithWhatItAsksFor(t *testing.T) {
	run(t)
	create(t, servicePool("asked", "192.0.2.32/28"))
	s := loadBalancer("asking")
	s.Annotations = map[string]string{annotation.LoadBalancerIPs: "192.0.2.40"}
	create(t, s)
	if a := addressOf(t, s); a != "192.0.2.40" {
		t.Errorf("the service asked for 192.0.2.40 and has %s", a)
	}
	second := loadBalancer("asking-too")
	second.Annotations = s.Annotations
	create(t, second)
	says(t, second, &second.Status.Conditions, koratv1.ConditionAddressAssigned, "False AddressTaken: 192.0.2.40 is the address of service default/asking")
	change := func(how func()) {
		t.Helper()
		within(t, func(ctx context.Context) error {
			if err := admin.Get(ctx, client.ObjectKeyFromObject(s), s); err != nil {
				return err
			}
			how()
			return admin.Update(ctx, s)
		})
	}
	change(func() { s.Annotations[annotation.LoadBalancerIPs] = "192.0.2.41" })
	if a := addressOf(t, second); a != "192.0.2.40" {
		t.Errorf("the second service has %s, expected the address that the first one left", a)
	}
	change(func() { s.Spec.Type, s.Spec.LoadBalancerClass = corev1.ServiceTypeClusterIP, nil })
	within(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(s), s); err != nil {
			return err
		}
		if len(s.Status.LoadBalancer.Ingress)+len(s.Status.Conditions) > 0 {
			return fmt.Errorf("a service that is no load balancer any more has %+v", s.Status)
		}
		return nil
	})
}
